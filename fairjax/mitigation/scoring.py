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
    """Scores an estimator that needs sensitive features to predict.

    Where metadata routing is enabled, scikit-learn's own scorers give ``predict`` no
    metadata, so that a pipeline with a
    :class:`~fairjax.mitigation.DisparateImpactRemover` fails and is scored NaN
    (scikit-learn issue 27977). This one hands the sensitive features to each method
    that requests them.

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
        """Keep the settings; see the class."""
        self.scoring = scoring

    def get_metadata_routing(self) -> MetadataRequest:
        """Tells scikit-learn to give each call of the scorer sensitive features."""
        request = MetadataRequest(owner=self)
        request.score.add_request(param="sensitive_features", alias=True)
        return request

    def __call__(
        self, estimator: Any, X: Any, y: Any, *, sensitive_features: Any = None
    ) -> float:
        """The score.

        Args:
          estimator: A fitted estimator.
          X: ``[n, d]``.
          y: ``[n]``.
          sensitive_features: ``[n]`` or ``[n, attributes]``.
        """
        routed = _Routed(estimator, sensitive_features)
        return get_scorer(self.scoring)(routed, X, y)


class _Routed:
    """The estimator, whose methods are given the sensitive features they request."""

    def __init__(self, estimator: Any, sensitive_features: Any) -> None:
        self._estimator, self._given = estimator, sensitive_features

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._estimator, name)
        if name not in _RESPONSES:
            return found
        given = requested(self._estimator, name, self._given)

        @functools.wraps(found)
        def routed(X: Any) -> Any:
            return found(X, **given)

        return routed
