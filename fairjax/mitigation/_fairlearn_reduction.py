"""Fairlearn's reduction around a scikit-learn estimator."""

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
    """Checks that fairlearn's reduction can use an estimator.

    Args:
      estimator: The learner.
      weights: The argument of its ``fit`` for sample weights.

    Raises:
      ValueError: If ``estimator`` is not an estimator, is not a classifier, or its
        ``fit`` does not take weights.
    """
    if estimator is None or isinstance(estimator, type):
        raise ValueError(
            "estimator must be an instance of a scikit-learn classifier or of "
            f"FlaxClassifier; got {estimator!r}."
        )
    name = type(estimator).__name__
    if not hasattr(estimator, "fit") or not is_classifier(estimator):
        raise ValueError(f"estimator must be a classifier; got {name}.")
    if fit_takes(estimator, weights):
        return
    routing = sklearn.get_config()["enable_metadata_routing"]
    if "__" in weights and not routing:
        # The pipeline's step checks the weights.
        return
    how = "set sample_weight_name='<step>__sample_weight'"
    if routing:
        how = (
            "and metadata routing, set sample_weight_name='sample_weight', call "
            "set_fit_request(sample_weight=True) on its classifier, and "
            "set_fit_request(sample_weight=False) on other steps that take weights"
        )
    raise ValueError(
        f"estimator.fit must take {weights!r}, the weights of the reduction; got {name}"
        f", which does not. For a pipeline {how}."
    )


def fit(
    settings: Any,
    X: Any,
    labels: np.ndarray,
    groups: np.ndarray,
    constraints: ParityConstraints,
) -> None:
    """Fits fairlearn's reduction, and sets the attributes that both back ends have.

    Args:
      settings: A :class:`fairjax.mitigation.ExponentiatedGradient`.
      X: Features, as the estimator takes them.
      labels: ``[n]``, 0 or 1.
      groups: ``[n]``, integers.
      constraints: The patients' constraints, which hold the costs of wrong decisions.
    """
    # Fairlearn's moment for equalized_odds is EqualizedOdds, and so on.
    moment = getattr(reductions, settings.constraint.title().replace("_", ""))
    bounds = moment(
        difference_bound=settings.difference_bound,
        ratio_bound=settings.ratio_bound,
        ratio_bound_slack=settings.ratio_slack,
    )
    false_positive, false_negative = constraints.wrong[:2].tolist()
    reduction = reductions.ExponentiatedGradient(
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
        # Newer releases of pandas warn of fairlearn's code, not of our users' code.
        warnings.filterwarnings("ignore", "Setting a", DeprecationWarning)
        reduction.fit(X, labels, sensitive_features=groups)
    chances = reduction.weights_.sort_index()
    used = chances[chances > 0]
    settings.predictors_ = [reduction.predictors_[i] for i in used.index]
    settings.chances_ = used.to_numpy(np.float64)
    settings.best_gap_ = float(reduction.best_gap_)
    settings.iterations_ = int(reduction.last_iter_) + 1
    multipliers = reduction.lambda_vecs_EG_.to_numpy(np.float64)
    settings.multipliers_ = multipliers[:, : reduction.best_iter_ + 1].mean(axis=1)


def selection_probability(fitted: Any, X: Any) -> np.ndarray:
    """Returns the probability that the mixture selects each patient, ``[n]``."""
    models = zip(fitted.chances_, fitted.predictors_, strict=True)
    selected = sum(q * (np.asarray(model.predict(X)) == 1) for q, model in models)
    return np.clip(selected, 0.0, 1.0)
