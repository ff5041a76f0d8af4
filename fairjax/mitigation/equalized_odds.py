r"""Post-processing: decisions changed so that groups have equal rates."""

import warnings
from typing import Any, Literal

import numpy as np
import pandas as pd

from fairjax.metrics import GroupCounts, group_rate
from fairjax.mitigation._extra import mitigation_extra
from fairjax.mitigation._sensitive import Groups
from fairjax.mitigation.decision_rules import expected_counts, selection_probability
from fairjax.mitigation.equal_rates import Constraint, Objective, equal_rate_rules

with mitigation_extra():
    from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
    from sklearn.preprocessing import LabelEncoder
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted

Scores = Literal["auto", "predict_proba", "decision_function", "predict"]
_SCORES = ("predict_proba", "decision_function", "predict")
_RATES = ("selection_rate", "true_positive_rate", "false_positive_rate", "error_rate")


class EqualizedOdds(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    r"""Decides with thresholds drawn for each group so that groups have equal rates.

    The rules solve a linear programme (:func:`fairjax.mitigation.equal_rate_rules`):
    of all rules under which the groups' true and false positive rates differ by at most
    a tolerance, those of least error or cost. Fit it on patients that the classifier
    was not trained on: rates on training rows flatter it.

    Two warnings that belong to the method:

    - *The group must be known to decide.* With ``shared=True`` one rule serves
      everyone and it need not be; that costs accuracy, and with a tolerance of 0 often
      all of it.
    - *Decisions are drawn.* Two patients alike may be decided differently.
      :meth:`predict_proba` gives the chance, which is what expected rates are exactly
      computed from.

    Args:
      estimator: A classifier of two classes; it is cloned and fitted on the same rows.
        Wrap a fitted one in :class:`sklearn.frozen.FrozenEstimator`.
      constraint: Which rates are to be equal, as in ``equal_rate_rules``.
      objective: ``"error"`` or ``"balanced_error"``.
      costs: Of a false positive and of a false negative.
      tolerance: The largest difference between groups allowed.
      shared: One rule for all groups.
      reverse: Whether scores below a threshold may be selected.
      response: Which method gives scores; ``"predict"`` for hard decisions, as in the
        published method; ``"auto"``: the first that there is of ``predict_proba``,
        ``decision_function`` and ``predict``.
      random_state: Of :meth:`predict`.

    Attributes:
      estimator_: The fitted classifier.
      classes_: The two classes; the second is the positive one.
      rules_: The rules, :class:`fairjax.mitigation.DecisionRules`.
      group_names_: Names of the groups, in the rules' order.
      counts_: Expected confusion counts of the rows of the fit.

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
      >>> fair.fit(x, labels, sensitive_features=groups).predict_proba(x).shape
      (400, 2)
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        constraint: Constraint = "equalized_odds",
        objective: Objective = "error",
        costs: tuple[float, float] = (1.0, 1.0),
        tolerance: float = 0.0,
        shared: bool = False,
        reverse: bool = False,
        response: Scores = "auto",
        random_state: Any = None,
    ) -> None:
        """Keep the settings; see the class."""
        self.estimator = estimator
        self.constraint = constraint
        self.objective = objective
        self.costs = costs
        self.tolerance = tolerance
        self.shared = shared
        self.reverse = reverse
        self.response = response
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        sensitive_features: Any = None,
        sample_weight: Any = None,
    ) -> "EqualizedOdds":
        """Fit the classifier, and the rules on its scores of the same rows.

        Args:
          X: ``[n, d]``, as the classifier takes it.
          y: ``[n]``, of two classes.
          sensitive_features: ``[n]`` or ``[n, attributes]``; each observed combination
            is a group.
          sample_weight: ``[n]``, at least 0.

        Returns:
          Itself.

        Raises:
          ValueError: As ``equal_rate_rules``; other than two classes; no sensitive
            features.
        """
        rows = len(y)
        self._groups = Groups.of(sensitive_features, rows=rows)
        self.group_names_ = self._groups.names
        codes = self._groups.known(sensitive_features, rows=rows)
        encoder = LabelEncoder().fit(y)
        if len(encoder.classes_) != 2:
            raise ValueError(
                f"the outcome has {len(encoder.classes_)} classes; two are needed."
            )
        self.classes_ = encoder.classes_
        given = {} if sample_weight is None else {"sample_weight": sample_weight}
        self.estimator_ = clone(self.estimator).fit(X, y, **given)
        labels, scores = encoder.transform(y), self._scores(X)
        if not self.shared:
            warnings.warn(
                "These rules need each patient's group to decide: predict asks for "
                "sensitive_features. With shared=True they do not.",
                stacklevel=2,
            )
        fitted = equal_rate_rules(
            labels,
            scores,
            codes,
            num_groups=len(self.group_names_),
            constraint=self.constraint,
            objective=self.objective,
            costs=self.costs,
            tolerance=self.tolerance,
            shared=self.shared,
            reverse=self.reverse,
            weights=sample_weight,
        )
        self.rules_, self.counts_ = fitted.rules, fitted.counts
        return self

    def predict_proba(self, X: Any, *, sensitive_features: Any = None) -> np.ndarray:
        """The chance of each decision, ``[n, 2]``: exact, no draw.

        Args:
          X: ``[n, d]``.
          sensitive_features: As at fit; not needed with ``shared=True``.

        Raises:
          ValueError: No sensitive features, or a group that fitting did not see.
        """
        check_is_fitted(self)
        scores = self._scores(X)
        if self.shared:
            codes = np.zeros(len(scores), np.int64)
        else:
            codes = self._groups.known(sensitive_features, rows=len(scores))
        chance = selection_probability(scores, codes, self.rules_)
        return np.stack([1 - chance, chance], axis=1)

    def predict(self, X: Any, *, sensitive_features: Any = None) -> np.ndarray:
        """Decisions, drawn with the chances of :meth:`predict_proba`."""
        chance = self.predict_proba(X, sensitive_features=sensitive_features)[:, 1]
        draws = check_random_state(self.random_state).random_sample(len(chance))
        return self.classes_[(draws < chance).astype(int)]

    def expected_counts(
        self, X: Any, y: Any, *, sensitive_features: Any, sample_weight: Any = None
    ) -> GroupCounts:
        """Confusion counts ``[G, 2, 2]`` expected of other rows, with no draw.

        Every rate and gap of :mod:`fairjax.metrics` reads them.
        """
        chance = self.predict_proba(X, sensitive_features=sensitive_features)[:, 1]
        codes = self._groups.known(sensitive_features, rows=len(chance))
        return expected_counts(
            np.asarray(y) == self.classes_[1],
            chance,
            codes,
            num_groups=len(self.group_names_),
            weights=sample_weight,
        )

    def report(self) -> pd.DataFrame:
        """Expected rates of each group on the rows of the fit, a row a group."""
        check_is_fitted(self)
        rates = {name: np.asarray(group_rate(self.counts_, name)) for name in _RATES}
        return pd.DataFrame(rates, index=pd.Index(self.group_names_, name="group"))

    def _scores(self, X: Any) -> np.ndarray:
        names = _SCORES if self.response == "auto" else (self.response,)
        name = next((n for n in names if hasattr(self.estimator_, n)), None)
        if name is None:
            raise ValueError(
                f"{type(self.estimator_).__name__} has none of {', '.join(names)}."
            )
        found = np.asarray(getattr(self.estimator_, name)(X))
        if name == "predict":
            return (found == self.classes_[1]).astype(np.float64)
        return found[:, 1] if found.ndim == 2 else found
