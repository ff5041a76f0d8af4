"""Scores of scikit-learn for estimators that need sensitive features to predict."""

import functools
from typing import Any

from fairjax._extra import extra
from fairjax.mitigation._passing import requested

with extra("mitigation", needed_by="mitigation"):
    from sklearn.base import BaseEstimator
    from sklearn.metrics import get_scorer
    from sklearn.utils.metadata_routing import MetadataRequest

_RESPONSES = ("predict", "predict_proba", "decision_function")


class RoutedScorer(BaseEstimator):
    """A scorer of an estimator that needs sensitive features to predict.

    Where metadata routing is enabled, scikit-learn's scorers do not pass metadata to
    ``predict``. A pipeline with a :class:`~fairjax.mitigation.DisparateImpactRemover`
    then fails and is scored NaN (scikit-learn issue 27977). A routed scorer gives the
    sensitive features to each method that requests them.

    Args:
      scoring: A scorer, or the name of one, such as ``"roc_auc"``.

    Example:
      >>> from sklearn.linear_model import LogisticRegression
      >>> from fairjax.mitigation.scoring import RoutedScorer
      >>> model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
      >>> float(RoutedScorer("roc_auc")(model, [[0.0], [1.0], [2.0]], [0, 1, 1]))
      1.0
    """

    def __init__(self, scoring: Any) -> None:
        """Keeps the settings; see the class."""
        self.scoring = scoring

    def get_metadata_routing(self) -> MetadataRequest:
        """Tells scikit-learn to give each call of the scorer sensitive features."""
        request = MetadataRequest(owner=self)
        request.score.add_request(param="sensitive_features", alias=True)
        return request

    def __call__(
        self, estimator: Any, X: Any, y: Any, *, sensitive_features: Any = None
    ) -> float:
        """Returns the score.

        Args:
          estimator: A fitted estimator.
          X: ``[n, d]``.
          y: ``[n]``.
          sensitive_features: ``[n]`` or ``[n, attributes]``.
        """
        routed = _Routed(estimator, sensitive_features)
        return get_scorer(self.scoring)(routed, X, y)


class _Routed:
    """An estimator whose methods are given the sensitive features they request."""

    def __init__(self, estimator: Any, sensitive_features: Any) -> None:
        self._estimator, self._given = estimator, sensitive_features

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._estimator, name)
        if name not in _RESPONSES:
            return method
        given = requested(self._estimator, name, self._given)

        @functools.wraps(method)
        def routed(X: Any) -> Any:
            return method(X, **given)

        return routed
