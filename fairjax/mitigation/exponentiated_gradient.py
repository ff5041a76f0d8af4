r"""In-processing: a randomised classifier under parity constraints."""

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

# A fitted mixture that exceeds its bound by more is warned of.
_MISSED = 1e-3


@dataclasses.dataclass(eq=False, repr=False)
class ExponentiatedGradient(
    RandomisedMixin, ClassifierMixin, MetaEstimatorMixin, BaseEstimator
):
    r"""A randomised classifier that minimises cost under parity constraints.

    The classifier mixes the learner's classifiers at approximately the least cost under
    the constraints (:func:`~fairjax.mitigation.parity_constraints`; Agarwal et al.
    2018). A game answers prices of groups and outcomes with classifiers of weighted
    labels (:func:`~fairjax.mitigation.solve_reduction`). Fitting needs the groups;
    predicting does not.

    The estimator chooses one of two back ends:

    - a :class:`~fairjax.mitigation.FlaxClassifier`: trained here, eight multipliers at
      a time in one compiled program, each starting from its model of the iteration
      before;
    - any scikit-learn estimator whose ``fit`` takes sample weights: fairlearn's
      ``ExponentiatedGradient``.

    Both back ends minimise a surrogate of the error, so the gap is the distance from
    the best mixture of the classifiers *found*.

    Args:
      estimator: A Flax learner or a scikit-learn estimator, which is cloned.
      constraint: ``"demographic_parity"``, ``"equalized_odds"``,
        ``"true_positive_rate_parity"``, ``"false_positive_rate_parity"`` or
        ``"error_rate_parity"``.
      difference_bound: The largest distance of a group's rate from the rate of all
        patients, in [0, 1]; .01 where neither bound is given.
      ratio_bound: The least ratio of the two rates, in (0, 1]; instead of a difference.
        Two groups may be further apart than each is from all patients.
      ratio_slack: The largest miss of a ratio bound.
      objective: ``"error"``, or ``"balanced_error"``, the mean of the false positive
        and the false negative rate. With a rare outcome, the plain error selects hardly
        any patients.
      costs: Costs of a false positive and of a false negative.
      max_iterations: The most iterations of the game.
      gap_tolerance: The gap at which the game ends; None: half the standard error of
        the unconstrained classifier's cost.
      learning_rate: Learning rate of the multipliers.
      multiplier_bound: The multipliers' largest sum, B. A violation of less than about
        1 / B may stay.
      sample_weight_name: The argument for weights of a scikit-learn estimator's
        ``fit``; for a pipeline ``"<step>__sample_weight"``. Where metadata routing is
        enabled, use ``"sample_weight"`` and a classifier with
        ``set_fit_request(sample_weight=True)``.
      random_state: Random state of :meth:`predict`, and of the Flax models' initial
        parameters and batches. With an integer every call of ``predict`` draws the same
        numbers. Patients decided one by one then share one draw, which is a fixed
        threshold on their probability and no longer fair. Give a
        ``numpy.random.RandomState`` for such patients.

    Attributes:
      classes_: The two classes; the second is the positive one.
      group_names_: Names of the groups.
      chances_: ``[H]``, probabilities of the mixture's classifiers, each above 0.
      best_gap_: The duality gap that was reached.
      iterations_: Number of iterations.
      multipliers_: ``[J]``, final multipliers of the constraints' rows, for a
        scikit-learn learner in fairlearn's order.
      cost_: The objective's expected value in the rows of the fit.
      violation_: The largest violation of a constraint in the rows of the fit; at most
        0 where all constraints hold.
      counts_: Expected confusion counts of the rows of the fit, ``[G, 2, 2]``.
      mixture_: The :class:`~fairjax.mitigation.flax_responses.Mixture`, for a Flax
        learner.
      predictors_: The classifiers, for a scikit-learn learner.

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
      >>> chance = fair.predict_proba(x)[:, 1]
      >>> right = np.where(labels == 1, chance, 1 - chance).mean()
      >>> bool(np.isclose(fair.score(x, labels), right)), bool(0.5 < right < 1)
      (True, True)
      >>> bool((fair.predict(x)[chance == 1] == 1).all())
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
        """Fits the mixture.

        Args:
          X: ``[n, d]``; numbers, for a Flax learner.
          y: ``[n]``, of two classes.
          sensitive_features: ``[n]`` or ``[n, attributes]``; each observed combination
            is a group.
          sample_weight: ``[n]``, at least 0; for a Flax learner only, since fairlearn's
            reduction has no weights of patients.

        Returns:
          The fitted estimator itself.

        Raises:
          TypeError: If features are sparse.
          ValueError: As ``parity_constraints``; if a setting of the game is out of
            range; if the outcome does not have two classes; if sensitive features are
            missing or among the features; if ``estimator`` is not a classifier that
            takes sample weights.
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
                    "sample_weight must be None for a scikit-learn estimator; got "
                    "weights. Leave sample_weight out, or use a FlaxClassifier."
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
            # An earlier fit may have used the other back end.
            self.__dict__.pop(name, None)
        if native:
            weighed = as_weights(weights, len(labels))
            self._fit_flax(features, 2 * codes + labels, weighed, constraints)
        else:
            _fairlearn_reduction.fit(self, features, labels, codes, constraints)
        probability = self._probability(X)
        groups: Any = {"num_groups": len(self.group_names_), "weights": weights}
        self.counts_ = expected_counts(labels, probability, codes, **groups)
        self._assess(constraints)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Returns the exact probability of each decision, ``[n, 2]``, without a draw.

        Args:
          X: ``[n, d]``, of the columns seen at fit.

        Raises:
          ValueError: If the columns are not those of the fit.
        """
        check_is_fitted(self, "chances_")
        features = self._features(X, reset=False)
        if isinstance(self.estimator, FlaxClassifier):
            selected = mixture_probability(self.estimator, self.mixture_, features)
        else:
            selected = _fairlearn_reduction.selection_probability(self, features)
        return np.stack([1 - selected, selected], axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Draws decisions with the probabilities of :meth:`predict_proba`."""
        return self._drawn(X)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Returns the expected accuracy, the exact mean probability of being right.

        Args:
          X: ``[n, d]``.
          y: ``[n]``, of the classes seen at fit.
          sample_weight: ``[n]``, at least 0.

        Raises:
          ValueError: If the columns or classes are not those of the fit.
        """
        return self._accuracy(X, y, sample_weight)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the mixture of a Flax learner to one ``.npz`` file, without pickle.

        The file is written whole or not at all. The file does not hold the model's
        code, nor a random state other than an integer.

        Args:
          path: Path of the file.

        Raises:
          ValueError: If the learner is of scikit-learn, whose models only pickle.
        """
        check_is_fitted(self, "chances_")
        if not isinstance(self.estimator, FlaxClassifier):
            raise ValueError(
                "estimator must be a FlaxClassifier to be saved; got "
                f"{type(self.estimator).__name__}. Save it with skops."
            )
        write_fitted(Path(path), self)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], estimator: FlaxClassifier
    ) -> "ExponentiatedGradient":
        """Reads a saved mixture, ready to predict.

        The model's code is not in the file. Only the shapes of its parameters are
        compared: another model of the same shapes loads, and predicts otherwise.

        Args:
          path: Path of the file.
          estimator: The learner that the mixture was fitted with.

        Returns:
          The fitted estimator.

        Raises:
          FileNotFoundError: If there is no such file.
          ValueError: If ``estimator`` is not a Flax learner, or the file is damaged,
            does not hold a mixture, or is of another model.
        """
        return read_fitted(Path(path), cls, estimator)

    def __sklearn_tags__(self) -> Any:
        """Tells scikit-learn: two classes, and for a Flax learner finite numbers."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        if hasattr(self.estimator, "fit"):
            tags.input_tags.allow_nan = get_tags(self.estimator).input_tags.allow_nan
        return tags

    def _probability(self, X: Any, sensitive_features: Any = None) -> np.ndarray:
        del sensitive_features  # Needed to fit, not to predict.
        return self.predict_proba(X)[:, 1]

    def _features(self, X: Any, *, reset: bool) -> Any:
        """Returns the features: numbers for a Flax learner, else unchanged."""
        if isinstance(self.estimator, FlaxClassifier):
            return np.asarray(validate_data(self, X, dtype=np.float64, reset=reset))
        if issparse(X):
            raise TypeError(
                "features must be dense for fairlearn's reduction; got a sparse "
                "matrix. Convert X with X.toarray()."
            )
        features: Any = X if hasattr(X, "shape") else np.asarray(X)
        if len(features.shape) != 2:
            raise ValueError(
                f"Expected 2D array, the features of each row; got {features.shape}. "
                "Reshape your data."
            )
        validate_data(self, features, skip_check_array=True, reset=reset)
        return features

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

    def _assess(self, constraints: ParityConstraints) -> None:
        """Sets cost and violation in the rows of the fit; warns of a violation."""
        counts = np.asarray(self.counts_.counts)
        total = counts.sum(axis=-1)
        selected = (counts[..., 1] / np.where(total > 0, total, 1)).reshape(-1)
        self.cost_ = float(expected_cost(constraints, selected))
        missed = violations(constraints, selected)
        self.violation_ = float(np.max(missed, initial=-constraints.bound))
        if self.violation_ > _MISSED:
            warnings.warn(
                f"no mixture of the learner's classifiers found so far meets the bound "
                f"{constraints.bound:g}; the mixture exceeds it by "
                f"{self.violation_:.3g}. The learner may be unable to meet the bound; "
                "otherwise raise max_iterations or multiplier_bound.",
                stacklevel=3,
            )
