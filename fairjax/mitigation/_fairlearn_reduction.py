"""The reduction around a scikit-learn estimator: fairlearn's."""

import warnings
from typing import Any

import numpy as np

from fairjax._extra import extra
from fairjax.mitigation._passing import fit_takes
from fairjax.mitigation.constraints import ParityConstraints

with extra("mitigation", needed_by="mitigation"):
    import sklearn
    from fairlearn import reductions
    from sklearn.base import is_classifier


def check_learner(estimator: Any, weights: str) -> None:
    """Refuse what fairlearn's reduction cannot be put around.

    Args:
      estimator: The learner.
      weights: What its ``fit`` calls sample weights.

    Raises:
      ValueError: No estimator, no classifier, or one whose ``fit`` takes no weights.
    """
    if estimator is None or isinstance(estimator, type):
        raise ValueError(
            "an estimator is needed: a scikit-learn classifier, or a FlaxClassifier, "
            f"not {estimator!r}."
        )
    name = type(estimator).__name__
    if not hasattr(estimator, "fit") or not is_classifier(estimator):
        raise ValueError(f"the estimator is a classifier, not {name}.")
    if fit_takes(estimator, weights):
        return
    routing = sklearn.get_config()["enable_metadata_routing"]
    if "__" in weights and not routing:
        # Of a pipeline's step, which sees to it.
        return
    how = "give sample_weight_name='<step>__sample_weight'"
    if routing:
        how = (
            "sample_weight_name is 'sample_weight' while metadata routing is enabled; "
            "have its classifier ask by set_fit_request(sample_weight=True), and other "
            "steps that take weights decline by set_fit_request(sample_weight=False)"
        )
    raise ValueError(
        f"{name}.fit takes no {weights!r}, by which the reduction tells an estimator "
        f"what it wants. For a pipeline {how}."
    )


def fit(
    settings: Any,
    X: Any,
    labels: np.ndarray,
    groups: np.ndarray,
    constraints: ParityConstraints,
) -> None:
    """Fit fairlearn's reduction, and keep of it what both back ends have.

    Args:
      settings: A :class:`fairjax.mitigation.ExponentiatedGradient`.
      X: As the estimator takes it.
      labels: ``[n]``, 0 or 1.
      groups: ``[n]``, numbers.
      constraints: Of these patients; what wrong decisions cost is read of them.

    """
    # equalized_odds is EqualizedOdds there, and so on.
    moment = getattr(reductions, settings.constraint.title().replace("_", ""))
    bounds = moment(
        difference_bound=settings.difference_bound,
        ratio_bound=settings.ratio_bound,
        ratio_bound_slack=settings.ratio_slack,
    )
    false_positive, false_negative = constraints.wrong[:2].tolist()
    found = reductions.ExponentiatedGradient(
        settings.estimator,
        bounds,
        objective=reductions.ErrorRate(
            costs={"fp": false_positive, "fn": false_negative}
        ),
        eps=1 / settings.multiplier_bound,
        max_iter=settings.max_iterations,
        nu=settings.gap_tolerance,
        eta0=settings.learning_rate,
        sample_weight_name=settings.sample_weight_name,
    )
    with warnings.catch_warnings():
        # What newer releases of pandas say of fairlearn is not for our users.
        warnings.filterwarnings("ignore", "Setting a", DeprecationWarning)
        found.fit(X, labels, sensitive_features=groups)
    chances = found.weights_.sort_index()
    used = chances[chances > 0]
    settings.predictors_ = [found.predictors_[i] for i in used.index]
    settings.chances_ = used.to_numpy(np.float64)
    settings.best_gap_ = float(found.best_gap_)
    settings.iterations_ = int(found.last_iter_) + 1
    multipliers = found.lambda_vecs_EG_.to_numpy(np.float64)
    settings.multipliers_ = multipliers[:, : found.best_iter_ + 1].mean(axis=1)


def selection_chance(fitted: Any, X: Any) -> np.ndarray:
    """``[n]``: the chance that the mixture selects each patient."""
    chance = sum(
        share * (np.asarray(predictor.predict(X)) == 1)
        for share, predictor in zip(fitted.chances_, fitted.predictors_, strict=True)
    )
    return np.clip(chance, 0.0, 1.0)
