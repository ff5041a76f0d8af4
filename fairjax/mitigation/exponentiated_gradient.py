r"""In-processing: a mixture of classifiers under parity constraints."""

import dataclasses
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from fairjax._extra import extra
from fairjax.mitigation import _fairlearn_reduction
from fairjax.mitigation._passing import settings_for
from fairjax.mitigation._patients import as_weights
from fairjax.mitigation._randomised import RandomisedMixin
from fairjax.mitigation._sensitive import check_not_among
from fairjax.mitigation._stored_mixtures import read_fitted, write_fitted
from fairjax.mitigation.constraints import (
    Parity,
    ParityConstraints,
    expected_cost,
    parity_constraints,
    violations,
)
from fairjax.mitigation.costs import Objective
from fairjax.mitigation.decision_rules import expected_counts
from fairjax.mitigation.flax_responses import (
    FlaxClassifier,
    FlaxResponses,
    Mixture,
    mixture_probability,
)
from fairjax.mitigation.reduction import LANES, check_game, solve_reduction

with extra("mitigation", needed_by="mitigation"):
    from scipy.sparse import issparse
    from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin
    from sklearn.utils import check_consistent_length, check_random_state, get_tags
    from sklearn.utils.validation import (
        _check_sample_weight,
        check_is_fitted,
        validate_data,
    )

# As far as a fitted mixture may miss its bound without a word.
_MISSED = 1e-3


@dataclasses.dataclass(eq=False, repr=False)
class ExponentiatedGradient(
    RandomisedMixin, ClassifierMixin, MetaEstimatorMixin, BaseEstimator
):
    r"""A random choice of classifiers whose rates are alike in all groups.

    Of all mixtures of the learner's classifiers it is, nearly, the one of least cost
    under the constraints (:func:`~fairjax.mitigation.parity_constraints`). It is found
    by answering prices of groups and outcomes with classifiers of weighted labels
    (:func:`~fairjax.mitigation.solve_reduction`). The group is needed to fit, not
    to predict.

    Two back ends, chosen by the estimator:

    - a :class:`~fairjax.mitigation.FlaxClassifier`: trained here, eight multipliers at
      a time in one compiled program, each from where its place was left;
    - any scikit-learn estimator whose ``fit`` takes sample weights: fairlearn's
      ``ExponentiatedGradient``.

    Both minimise a surrogate of the error, so that the gap tells how far the mixture is
    from the best one of the classifiers *found*.

    Args:
      estimator: See above; it is cloned.
      constraint: ``"demographic_parity"``, ``"equalized_odds"``,
        ``"true_positive_rate_parity"``, ``"false_positive_rate_parity"`` or
        ``"error_rate_parity"``.
      difference_bound: How far a group's rate may be from all patients', in [0, 1];
        .01 where neither bound is given.
      ratio_bound: The least ratio of the two rates, in (0, 1]; instead of a difference.
        Two groups may be further apart than each is from all patients.
      ratio_slack: What a ratio bound may be missed by.
      objective: ``"error"``, or ``"balanced_error"``, the mean of the false positive
        and the false negative rate. By the plain error a rare outcome leaves hardly
        anyone selected.
      costs: Of a false positive and of a false negative.
      max_iterations: Of the game.
      gap_tolerance: The gap at which it ends; None: half the standard error of the
        unconstrained classifier's cost.
      learning_rate: Of the multipliers.
      multiplier_bound: The multipliers' largest sum, B. A violation of less than about
        1 / B may stay.
      sample_weight_name: What ``fit`` of a scikit-learn estimator calls its weights;
        for a pipeline ``"<step>__sample_weight"``, but where metadata routing is
        enabled ``"sample_weight"``, and its classifier has
        ``set_fit_request(sample_weight=True)``.
      random_state: Of :meth:`predict`, and of the Flax models' beginnings and batches.
        With a number every call of ``predict`` draws alike: patients who are decided
        one by one then share one draw, which is a fixed threshold on their chance and
        no longer fair. For those give a ``numpy.random.RandomState``.

    Attributes:
      classes_: The two classes; the second is the positive one.
      group_names_: Names of the groups.
      chances_: ``[H]``, of the mixture's classifiers, each above 0.
      best_gap_: The duality gap that was reached.
      iterations_: How many there were.
      multipliers_: ``[J]``, of the constraints' rows, at the end; those of fairlearn in
        its own order.
      cost_: The objective's expected value in the rows of the fit.
      violation_: By how much the worst constraint is missed there; at most 0 if none.
      counts_: Expected confusion counts there, ``[G, 2, 2]``.
      mixture_: The :class:`~fairjax.mitigation.flax_responses.Mixture`, of a Flax
        learner.
      predictors_: The classifiers, of a scikit-learn learner.

    References:
      Agarwal, Beygelzimer, Dudík, Langford and Wallach, *A Reductions Approach to Fair
      Classification*, ICML 2018.

    Example:
      >>> import numpy as np
      >>> from fairjax.mitigation import ExponentiatedGradient, FlaxClassifier
      >>> rng = np.random.default_rng(0)
      >>> groups = rng.integers(0, 2, 400)
      >>> x = rng.normal(size=(400, 2)) + groups[:, None]
      >>> labels = (x.sum(axis=1) + rng.normal(size=400) > 1).astype(int)
      >>> fair = ExponentiatedGradient(FlaxClassifier(), random_state=0)
      >>> fair = fair.fit(x, labels, sensitive_features=groups)
      >>> bool(np.ptp(fair.report()["selection_rate"]) < 0.03)
      True
    """

    estimator: Any = None
    _: dataclasses.KW_ONLY
    constraint: Parity = "demographic_parity"
    difference_bound: float | None = None
    ratio_bound: float | None = None
    ratio_slack: float = 0.0
    objective: Objective = "error"
    costs: tuple[float, float] = (1.0, 1.0)
    max_iterations: int = 50
    gap_tolerance: float | None = None
    learning_rate: float = 2.0
    multiplier_bound: float = 100.0
    sample_weight_name: str = "sample_weight"
    random_state: Any = None

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        sensitive_features: Any = None,
        sample_weight: Any = None,
    ) -> "ExponentiatedGradient":
        """Find the mixture.

        Args:
          X: ``[n, d]``; numbers, for a Flax learner.
          y: ``[n]``, of two classes.
          sensitive_features: ``[n]`` or ``[n, attributes]``; each observed combination
            is a group.
          sample_weight: ``[n]``, at least 0; for a Flax learner only, since fairlearn's
            reduction has no weights of patients.

        Returns:
          Itself.

        Raises:
          TypeError: Sparse features.
          ValueError: As ``parity_constraints``, for a group whose patients all have a
            weight of 0 too; a setting of the game out of its range; other than two
            classes; sensitive features that are missing or among the features; an
            estimator that is no classifier or takes no sample weights.
        """
        native = isinstance(self.estimator, FlaxClassifier)
        if not native:
            _fairlearn_reduction.check_learner(self.estimator, self.sample_weight_name)
        check_game(**settings_for(check_game, self))
        features = self._features(X, reset=True)
        labels, codes = self._begin(y, sensitive_features)
        check_consistent_length(features, labels)
        check_not_among(X, self._groups)
        weights = None
        if sample_weight is not None:
            if not native:
                raise ValueError(
                    "fairlearn's reduction takes no weights of patients: leave "
                    "sample_weight out, or use a FlaxClassifier."
                )
            weights = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        constraints = parity_constraints(
            labels,
            codes,
            num_groups=len(self.group_names_),
            weights=weights,
            names=self.group_names_,
            **settings_for(parity_constraints, self),
        )
        for name in ("mixture_", "predictors_"):
            # Of an earlier fit, it may be with the other back end.
            self.__dict__.pop(name, None)
        if native:
            weighed = as_weights(weights, len(labels))
            self._fit_flax(features, 2 * codes + labels, weighed, constraints)
        else:
            _fairlearn_reduction.fit(self, features, labels, codes, constraints)
        chance = self._chance(X)
        self.counts_ = expected_counts(
            labels, chance, codes, num_groups=len(self.group_names_), weights=weights
        )
        self._judge(constraints)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """The chance of each decision, ``[n, 2]``: exact, no draw.

        Args:
          X: ``[n, d]``, of the columns seen at fit.

        Raises:
          ValueError: Other columns than at fit.
        """
        check_is_fitted(self, "chances_")
        features = self._features(X, reset=False)
        if isinstance(self.estimator, FlaxClassifier):
            chance = mixture_probability(self.estimator, self.mixture_, features)
        else:
            chance = _fairlearn_reduction.selection_chance(self, features)
        return np.stack([1 - chance, chance], axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Decisions, drawn with the chances of :meth:`predict_proba`."""
        return self._drawn(X)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Expected accuracy, exact: the mean chance of the right decision.

        Args:
          X: ``[n, d]``.
          y: ``[n]``, of the classes seen at fit.
          sample_weight: ``[n]``, at least 0.

        Raises:
          ValueError: Other columns or classes than at fit.
        """
        return self._accuracy(X, y, sample_weight)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the mixture of a Flax learner to one ``.npz`` file, without pickle.

        It is whole or not there. The model's code is not in it, nor a random state that
        is not a number.

        Args:
          path: Of the file.

        Raises:
          ValueError: A scikit-learn learner, which has no form but pickle's.
        """
        check_is_fitted(self, "chances_")
        if not isinstance(self.estimator, FlaxClassifier):
            raise ValueError(
                "only a mixture of Flax models is saved; scikit-learn's are pickles, "
                "for which there is skops."
            )
        write_fitted(Path(path), self)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], estimator: FlaxClassifier
    ) -> "ExponentiatedGradient":
        """A saved mixture, ready to predict.

        The model's code is not in the file: only the shapes of its parameters are
        compared, and another model of the same shapes predicts otherwise.

        Args:
          path: Of the file.
          estimator: The learner that it was fitted with.

        Raises:
          FileNotFoundError: No such file.
          ValueError: No Flax learner; a file that is damaged, of something else, or of
            another model.
        """
        return read_fitted(Path(path), cls, estimator)

    def __sklearn_tags__(self) -> Any:
        """Two classes; of a Flax learner plain tables of finite numbers."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        if hasattr(self.estimator, "fit"):
            tags.input_tags.allow_nan = get_tags(self.estimator).input_tags.allow_nan
        return tags

    def _chance(self, X: Any, sensitive_features: Any = None) -> np.ndarray:
        del sensitive_features  # Needed to fit, not to predict.
        return self.predict_proba(X)[:, 1]

    def _features(self, X: Any, *, reset: bool) -> Any:
        """The features: numbers for a Flax learner, as they are for any other."""
        if isinstance(self.estimator, FlaxClassifier):
            return np.asarray(validate_data(self, X, dtype=np.float64, reset=reset))
        if issparse(X):
            raise TypeError(
                "sparse features are not supported by fairlearn's reduction: use "
                "toarray()."
            )
        found: Any = X if hasattr(X, "shape") else np.asarray(X)
        if len(found.shape) != 2:
            raise ValueError(
                f"Expected 2D array, the features of each row; got {found.shape}. "
                "Reshape your data."
            )
        validate_data(self, found, skip_check_array=True, reset=reset)
        return found

    def _fit_flax(
        self,
        features: np.ndarray,
        cells: np.ndarray,
        weights: np.ndarray,
        constraints: ParityConstraints,
    ) -> None:
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        responses = FlaxResponses(
            self.estimator,
            features,
            cells,
            weights,
            num_cells=2 * len(self.group_names_),
            lanes=LANES,
            key=seed,
        )
        found = solve_reduction(
            constraints,
            responses,
            num_patients=len(cells),
            **settings_for(solve_reduction, self),
        )
        self.mixture_: Mixture = responses.mixture(found.places, found.chances)
        self.chances_ = self.mixture_.chances
        self.best_gap_, self.iterations_ = found.best_gap, found.iterations
        self.multipliers_ = found.multipliers

    def _judge(self, constraints: ParityConstraints) -> None:
        """Cost and violation in the rows of the fit; a warning where it is missed."""
        counts = np.asarray(self.counts_.counts)
        total = counts.sum(axis=-1)
        selected = (counts[..., 1] / np.where(total > 0, total, 1)).reshape(-1)
        self.cost_ = float(expected_cost(constraints, selected))
        missed = violations(constraints, selected)
        self.violation_ = float(np.max(missed, initial=-constraints.bound))
        if self.violation_ > _MISSED:
            warnings.warn(
                f"no mixture of the learner's classifiers that was found meets the "
                f"bound of {constraints.bound:g}: it is missed by "
                f"{self.violation_:.3g}. The bound may be out of the learner's reach; "
                "otherwise raise max_iterations or multiplier_bound.",
                stacklevel=3,
            )
