"""Routing of groups and weights to a wrapped estimator."""

import inspect
from typing import Any

from fairjax._extra import extra

with extra("mitigation", needed_by="mitigation"):
    import sklearn
    from sklearn.frozen import FrozenEstimator
    from sklearn.pipeline import Pipeline
    from sklearn.utils.metadata_routing import get_routing_for_object
    from sklearn.utils.validation import has_fit_parameter


def requested(estimator: Any, method: str, sensitive_features: Any) -> dict[str, Any]:
    """Returns the sensitive features if metadata routing says a method takes them.

    Example:
      >>> from sklearn.linear_model import LogisticRegression
      >>> requested(LogisticRegression(), "fit", ["f", "m"])
      {}
    """
    if sensitive_features is None or not asks(estimator, method, "sensitive_features"):
        return {}
    return {"sensitive_features": sensitive_features}


def settings_for(function: Any, estimator: Any) -> dict[str, Any]:
    """Returns the settings of an estimator that a function takes by the same names.

    Example:
      >>> from sklearn.linear_model import LogisticRegression
      >>> settings_for(lambda features, C: ..., LogisticRegression(C=2.0))
      {'C': 2.0}
    """
    settings = estimator.get_params(deep=False)
    taken = inspect.signature(function).parameters
    return {name: settings[name] for name in taken if name in settings}


def takes_weights(estimator: Any) -> bool:
    """Checks that fit takes sample weights; a fitted estimator returns False.

    Raises:
      ValueError: If fit does not.

    Example:
      >>> from sklearn.linear_model import LogisticRegression
      >>> takes_weights(LogisticRegression())
      True
    """
    if isinstance(estimator, FrozenEstimator):
        return False
    if fit_takes(estimator, "sample_weight"):
        return True
    raise ValueError(
        f"estimator.fit must take sample_weight; got {type(estimator).__name__}. Leave "
        "weights out, or wrap a fitted one in FrozenEstimator to weight only the rules."
    )


def fit_takes(estimator: Any, weights: str) -> bool:
    """Returns whether fit takes sample weights under a name, or forwards them.

    Searches and ensembles forward weights to all their estimators. A pipeline forwards
    weights only where metadata routing is enabled.

    Example:
      >>> from sklearn.linear_model import LogisticRegression
      >>> from sklearn.model_selection import GridSearchCV
      >>> fit_takes(GridSearchCV(LogisticRegression(), {}), "sample_weight")
      True
    """
    if has_fit_parameter(estimator, weights) or asks(estimator, "fit", weights):
        return True
    if sklearn.get_config()["enable_metadata_routing"]:
        return False
    parameters = inspect.signature(estimator.fit).parameters.values()
    if isinstance(estimator, Pipeline | FrozenEstimator):
        return False
    if not any(part.kind == part.VAR_KEYWORD for part in parameters):
        return False
    inner = [part for _, part in getattr(estimator, "estimators", ())]
    inner += [getattr(estimator, n, None) for n in ("estimator", "final_estimator")]
    inner = [part for part in inner if part not in (None, "drop")]
    return bool(inner) and all(
        "__" in weights or fit_takes(part, weights) for part in inner
    )


def asks(estimator: Any, method: str, name: str) -> bool:
    """Returns whether metadata routing is enabled and gives a method an argument.

    Example:
      >>> from sklearn.linear_model import LogisticRegression
      >>> asks(LogisticRegression(), "fit", "sample_weight")
      False
    """
    if not sklearn.get_config()["enable_metadata_routing"]:
        return False
    if isinstance(estimator, FrozenEstimator) and method != "fit":
        # It forwards what its estimator requests, without a request of its own.
        estimator = estimator.estimator
    return bool(get_routing_for_object(estimator).consumes(method, [name]))
