"""What a wrapped estimator is given of a table's groups and weights."""

from typing import Any

from fairjax.mitigation._extra import mitigation_extra

with mitigation_extra():
    import sklearn
    from sklearn.frozen import FrozenEstimator
    from sklearn.utils.metadata_routing import get_routing_for_object
    from sklearn.utils.validation import has_fit_parameter


def requested(estimator: Any, method: str, sensitive_features: Any) -> dict[str, Any]:
    """Sensitive features, for a method that metadata routing says takes them.

    Example:
      >>> from sklearn.linear_model import LogisticRegression
      >>> requested(LogisticRegression(), "fit", ["f", "m"])
      {}
    """
    if sensitive_features is None or not asks(estimator, method, "sensitive_features"):
        return {}
    return {"sensitive_features": sensitive_features}


def takes_weights(estimator: Any) -> bool:
    """Whether fit takes sample weights; one that is fitted already need not.

    Raises:
      ValueError: It takes none.

    Example:
      >>> from sklearn.linear_model import LogisticRegression
      >>> takes_weights(LogisticRegression())
      True
    """
    if isinstance(estimator, FrozenEstimator):
        return False
    if has_fit_parameter(estimator, "sample_weight"):
        return True
    if asks(estimator, "fit", "sample_weight"):
        return True
    raise ValueError(
        f"{type(estimator).__name__} takes no sample_weight: leave it out, or wrap a "
        "fitted one in FrozenEstimator, so that only the rules are weighted."
    )


def asks(estimator: Any, method: str, name: str) -> bool:
    """Whether metadata routing is on, and hands a method what is called so.

    Example:
      >>> from sklearn.linear_model import LogisticRegression
      >>> asks(LogisticRegression(), "fit", "sample_weight")
      False
    """
    if not sklearn.get_config()["enable_metadata_routing"]:
        return False
    if isinstance(estimator, FrozenEstimator) and method != "fit":
        # It hands on what its own estimator asks for, but does not say so.
        estimator = estimator.estimator
    return bool(get_routing_for_object(estimator).consumes(method, [name]))
