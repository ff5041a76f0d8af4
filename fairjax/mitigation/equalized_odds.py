r"""Post-processing: decisions changed so that groups have equal rates."""

import dataclasses
import functools
import warnings
from typing import Any, Literal, get_args

import numpy as np

from fairjax._extra import extra
from fairjax.mitigation._passing import requested, settings_for, takes_weights
from fairjax.mitigation._patients import check_each
from fairjax.mitigation._randomised import RandomisedMixin
from fairjax.mitigation.costs import Objective
from fairjax.mitigation.decision_rules import selection_probability
from fairjax.mitigation.equal_rates import Constraint, equal_rate_rules
from fairjax.types import check_choice

with extra("mitigation", needed_by="mitigation"):
    from sklearn.base import (
        BaseEstimator,
        ClassifierMixin,
        MetaEstimatorMixin,
        clone,
        is_classifier,
    )
    from sklearn.utils import check_consistent_length, get_tags
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted

Scores = Literal["auto", "predict_proba", "decision_function", "predict"]
_SCORES = ("predict_proba", "decision_function", "predict")


@dataclasses.dataclass(eq=False, repr=False)
class EqualizedOdds(
    RandomisedMixin, ClassifierMixin, MetaEstimatorMixin, BaseEstimator
):
    r"""A classifier with randomised thresholds by group, so that rates are equal.

    The rules solve a linear programme (:func:`fairjax.mitigation.equal_rate_rules`):
    the least error or cost under which the groups' true and false positive rates differ
    by at most a tolerance. Fit the rules on patients that the classifier was not
    trained on, because rates on training rows are too good.

    The method has two drawbacks:

    - *Decisions need the patient's group.* With ``shared=True`` one rule serves all
      groups and decisions do not need the group. A shared rule costs accuracy, with a
      tolerance of 0 often all of the accuracy.
    - *Decisions are drawn.* Two equal patients may get different decisions.
      :meth:`predict_proba` returns the probability, from which expected rates and
      :meth:`score` are exactly computed.

    The classifier is given sensitive features only where scikit-learn's metadata
    routing is enabled and the classifier, or a step of its pipeline, requests them.

    Args:
      estimator: A classifier of two classes, which is cloned and fitted on the same
        rows. Wrap a fitted classifier in :class:`sklearn.frozen.FrozenEstimator`.
      constraint: Which rates must be equal: ``"equalized_odds"``,
        ``"true_positive_rate_parity"``, ``"false_positive_rate_parity"`` or
        ``"demographic_parity"``.
      objective: ``"error"`` or ``"balanced_error"``.
      costs: Costs of a false positive and of a false negative, at least 0.
      tolerance: The largest difference between groups allowed, in [0, 1].
      shared: One rule for all groups. At most 1000 candidate thresholds are tried, so
        the cost is only close to the least.
      reverse: Whether scores below a threshold may be selected.
      response: Which method gives scores; ``"predict"`` for hard decisions, as in the
        published method; ``"auto"`` for the first available of ``predict_proba``,
        ``decision_function`` and ``predict``.
      random_state: Random state of :meth:`predict`. With an integer every call draws
        the same numbers. Patients decided one by one then share one draw, which is a
        fixed threshold on their probability and no longer fair. Give a
        ``numpy.random.RandomState`` for such patients.

    Attributes:
      estimator_: The fitted classifier.
      classes_: The two classes; the second is the positive one.
      rules_: The rules, :class:`fairjax.mitigation.DecisionRules`.
      group_names_: Names of the groups, in the rules' order.
      counts_: Expected confusion counts ``[G, 2, 2]`` of the rows of the fit.
      cost_: The objective's value over all rows of the fit.
      lacking_groups_: Names of the groups without the positives or negatives of a
        constrained rate. The programme left these groups out, and their rules have the
        other groups' mean rate.
      n_features_in_: The classifier's number of features, where defined.
      feature_names_in_: The classifier's feature names, where defined.

    References:
      Hardt, Price and Srebro, *Equality of Opportunity in Supervised Learning*,
      NeurIPS 2016.

    Example:
      >>> import numpy as np
      >>> from sklearn.linear_model import LogisticRegression
      >>> from fairjax.mitigation import EqualizedOdds
      >>> rng = np.random.default_rng(0)
      >>> groups = rng.integers(0, 2, 400)
      >>> labels = rng.integers(0, 2, 400)
      >>> x = (labels * (1 + groups) + rng.normal(size=400))[:, None]
      >>> fair = EqualizedOdds(LogisticRegression(), shared=True, tolerance=0.1)
      >>> fair = fair.fit(x, labels, sensitive_features=groups)
      >>> rest, chance = fair.predict_proba(x).T
      >>> bool(np.allclose(rest + chance, 1)), bool((chance >= 0).all())
      (True, True)
      >>> bool(np.isin(fair.predict(x), [0, 1]).all())
      True
      >>> right = np.where(labels == 1, chance, 1 - chance).mean()
      >>> bool(np.isclose(fair.score(x, labels), right)), bool(right > 0.7)
      (True, True)
    """

    estimator: Any
    _: dataclasses.KW_ONLY
    constraint: Constraint = "equalized_odds"
    objective: Objective = "error"
    costs: tuple[float, float] = (1.0, 1.0)
    tolerance: float = 0.0
    shared: bool = False
    reverse: bool = False
    response: Scores = "auto"
    random_state: Any = None

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        sensitive_features: Any = None,
        sample_weight: Any = None,
    ) -> "EqualizedOdds":
        """Fits the classifier, and the rules on its scores of the same rows.

        Args:
          X: ``[n, d]``, as the classifier takes it.
          y: ``[n]``, of two classes.
          sensitive_features: ``[n]`` or ``[n, attributes]``; each observed combination
            is a group.
          sample_weight: ``[n]``, at least 0.

        Returns:
          The fitted estimator itself.

        Raises:
          ValueError: As ``equal_rate_rules``; if ``estimator`` is not a classifier, or
            is a fitted classifier of other classes; the outcome does not have two
            classes; sensitive features are missing; or weights are given to a
            classifier that does not take weights.
        """
        check_choice("response", self.response, *get_args(Scores))
        if not hasattr(self.estimator, "fit") or not is_classifier(self.estimator):
            raise ValueError(
                f"estimator must be a classifier; got {type(self.estimator).__name__}."
            )
        labels, codes = self._begin(y, sensitive_features)
        check_consistent_length(X, labels)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(
                sample_weight, labels, ensure_non_negative=True
            )
        given = requested(self.estimator, "fit", sensitive_features)
        if sample_weight is not None and takes_weights(self.estimator):
            given["sample_weight"] = sample_weight
        estimator: Any = clone(self.estimator)
        self.estimator_ = estimator.fit(X, y, **given)
        for name in ("n_features_in_", "feature_names_in_"):
            # An earlier fit may have set the attribute.
            self.__dict__.pop(name, None)
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        theirs = getattr(self.estimator_, "classes_", self.classes_)
        if not np.array_equal(theirs, self.classes_):
            raise ValueError(
                f"the classifier must have the classes of y, {self.classes_.tolist()}; "
                f"got {np.asarray(theirs).tolist()}. Fit both on the same classes."
            )
        scores = self._scores(X, sensitive_features)
        if not self.shared:
            _warn_that_groups_are_needed()
        fitted = equal_rate_rules(
            labels,
            scores,
            codes,
            num_groups=len(self.group_names_),
            weights=sample_weight,
            names=self.group_names_,
            **settings_for(equal_rate_rules, self),
        )
        self.rules_, self.counts_, self.cost_ = fitted[:3]
        self.lacking_groups_ = tuple(self.group_names_[g] for g in fitted.lacking)
        return self

    def predict_proba(self, X: Any, *, sensitive_features: Any = None) -> np.ndarray:
        """Returns the exact probability of each decision, ``[n, 2]``, without a draw.

        Args:
          X: ``[n, d]``.
          sensitive_features: As at fit; not needed with ``shared=True``.

        Raises:
          ValueError: If sensitive features are missing, or a group is new since fit.
        """
        check_is_fitted(self)
        scores = self._scores(X, sensitive_features)
        if self.shared:
            codes = np.zeros(len(scores), np.int64)
        else:
            codes = self._groups.known(sensitive_features, rows=len(scores))
        selected = selection_probability(scores, codes, self.rules_)
        return np.stack([1 - selected, selected], axis=1)

    def predict(self, X: Any, *, sensitive_features: Any = None) -> np.ndarray:
        """Draws decisions ``[n]`` with the probabilities of :meth:`predict_proba`.

        Args:
          X: ``[n, d]``.
          sensitive_features: As at fit; not needed with ``shared=True``.

        Raises:
          ValueError: As :meth:`predict_proba`.
        """
        return self._drawn(X, sensitive_features)

    def score(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        sensitive_features: Any = None,
    ) -> float:
        """Returns the expected accuracy, the exact mean probability of being right.

        Args:
          X: ``[n, d]``.
          y: ``[n]``, of the classes seen at fit.
          sample_weight: ``[n]``, at least 0.
          sensitive_features: As at fit; not needed with ``shared=True``.

        Raises:
          ValueError: As :meth:`expected_counts`.
        """
        return self._accuracy(X, y, sample_weight, sensitive_features)

    def __sklearn_tags__(self) -> Any:
        """Tells scikit-learn: two classes, and the tables that the classifier takes."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        taken = get_tags(self.estimator).input_tags
        for name in ("sparse", "allow_nan", "pairwise"):
            setattr(tags.input_tags, name, getattr(taken, name))
        return tags

    def _probability(self, X: Any, sensitive_features: Any = None) -> np.ndarray:
        return self.predict_proba(X, sensitive_features=sensitive_features)[:, 1]

    def _scores(self, X: Any, sensitive_features: Any) -> np.ndarray:
        names = _SCORES if self.response == "auto" else (self.response,)
        name = next((n for n in names if hasattr(self.estimator_, n)), None)
        if name is None:
            raise ValueError(
                f"estimator must have {' or '.join(names)}; got "
                f"{type(self.estimator_).__name__}. Choose another response."
            )
        given = requested(self.estimator_, name, sensitive_features)
        scores = np.asarray(getattr(self.estimator_, name)(X, **given))
        if name == "predict":
            return (scores == self.classes_[1]).astype(np.float64)
        scores = scores[:, 1] if scores.ndim == 2 else scores
        gives = f"{type(self.estimator_).__name__}.{name} must give finite scores"
        check_each(scores, np.isfinite(scores), gives)
        return scores


@functools.cache
def _warn_that_groups_are_needed() -> None:
    """Warns once, rather than for every fold of a search."""
    warnings.warn(
        "These rules need each patient's group to decide, so predict requires "
        "sensitive_features. Set shared=True for one rule for all groups.",
        stacklevel=3,
    )
