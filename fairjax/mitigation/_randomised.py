"""The base class of randomised classifiers: outcomes, draws and expectations."""

from abc import abstractmethod
from typing import Any

import numpy as np
import pandas as pd

from fairjax._extra import extra
from fairjax.metrics import GroupCounts, group_rate
from fairjax.mitigation._sensitive import Groups
from fairjax.mitigation.decision_rules import expected_counts

with extra("mitigation", needed_by="mitigation"):
    from sklearn.preprocessing import LabelEncoder
    from sklearn.utils import (
        assert_all_finite,
        check_consistent_length,
        check_random_state,
        column_or_1d,
    )
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted

_RATES = ("selection_rate", "true_positive_rate", "false_positive_rate", "error_rate")


class RandomisedMixin:
    """Expected counts and rates of a randomised classifier.

    A fitted classifier has ``classes_``, ``group_names_`` and ``counts_``, and its
    groups as ``_groups``.
    """

    classes_: np.ndarray
    group_names_: tuple[str, ...]
    counts_: GroupCounts
    random_state: Any
    _groups: Groups

    def _begin(self, y: Any, sensitive_features: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns outcomes as 0 and 1 and the group of each row, both ``[n]``."""
        labels, self.classes_ = two_classes(y)
        self._groups, codes = Groups.read(sensitive_features, rows=len(labels))
        self.group_names_ = self._groups.names
        return labels, codes

    def expected_counts(
        self, X: Any, y: Any, *, sensitive_features: Any, sample_weight: Any = None
    ) -> GroupCounts:
        """Computes the expected confusion counts of other rows, without a draw.

        Args:
          X: ``[n, d]``.
          y: ``[n]``, of the classes seen at fit.
          sensitive_features: As at fit, also where decisions do not need them.
          sample_weight: ``[n]``, at least 0.

        Returns:
          Counts ``[G, 2, 2]``, for every rate and gap of :mod:`fairjax.metrics`.

        Raises:
          ValueError: If columns, classes or groups are not those of the fit.
        """
        labels = self._positive(y).astype(np.int64)
        probability = self._probability(X, sensitive_features)
        return expected_counts(
            labels,
            probability,
            self._groups.known(sensitive_features, rows=len(probability)),
            num_groups=len(self.group_names_),
            weights=sample_weight,
        )

    def report(self) -> pd.DataFrame:
        """Returns the groups' expected rates on the rows of the fit, a row a group."""
        check_is_fitted(self, "counts_")
        rates = {name: np.asarray(group_rate(self.counts_, name)) for name in _RATES}
        return pd.DataFrame(rates, index=pd.Index(self.group_names_, name="group"))

    @abstractmethod
    def _probability(self, X: Any, sensitive_features: Any = None) -> np.ndarray:
        """Returns the probability of the second class, ``[n]``."""

    def _drawn(self, X: Any, sensitive_features: Any = None) -> np.ndarray:
        """Draws decisions; an integer random state draws the same numbers each time."""
        probability = self._probability(X, sensitive_features)
        draws = check_random_state(self.random_state).random_sample(len(probability))
        return self.classes_[(draws < probability).astype(int)]

    def _accuracy(
        self, X: Any, y: Any, weights: Any, sensitive_features: Any = None
    ) -> float:
        """Returns the mean probability of the right decision.

        Raises:
          ValueError: If columns differ in length, or weights are negative, not finite
            or all 0.
        """
        positive, selected = self._positive(y), self._probability(X, sensitive_features)
        check_consistent_length(positive, selected)
        if weights is not None:
            weights = _check_sample_weight(weights, selected, ensure_non_negative=True)
            if not weights.any():
                raise ValueError("Sample weights need at least one non-zero number.")
        right = np.where(positive, selected, 1 - selected)
        return float(np.average(right, weights=weights))

    def _positive(self, y: Any) -> np.ndarray:
        """Returns whether each outcome is of the second class, bool ``[n]``.

        Raises:
          ValueError: If an outcome is of neither class.
        """
        check_is_fitted(self, "counts_")
        y = column_or_1d(_plain(y))
        if not np.isin(y, self.classes_).all():
            raise ValueError(
                f"labels must be of the classes seen at fit, {self.classes_.tolist()}; "
                f"got {np.setdiff1d(y, self.classes_).tolist()} too."
            )
        return y == self.classes_[1]


def two_classes(y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the outcome as 0 and 1, ``[n]``, and its two classes.

    Raises:
      ValueError: If the outcome is missing, is not categorical, or does not have two
        classes.

    Example:
      >>> two_classes(["no", "yes", "no"])
      (array([0, 1, 0]), array(['no', 'yes'], dtype='<U3'))
    """
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None.")
    y = column_or_1d(_plain(y), warn=True)
    check_classification_targets(y)
    assert_all_finite(y, input_name="y")
    encoder = LabelEncoder().fit(y)
    classes = np.asarray(encoder.classes_)
    if len(classes) != 2:
        raise ValueError(
            "Only binary classification is supported: y must have 2 classes; got "
            f"{len(classes)} class{'' if len(classes) == 1 else 'es'}."
        )
    return np.asarray(encoder.transform(y)), classes


def _plain(y: Any) -> Any:
    """Returns an outcome of a pandas extension type as NumPy has it.

    Raises:
      ValueError: If values are missing.
    """
    if not isinstance(getattr(y, "dtype", None), pd.api.extensions.ExtensionDtype):
        return y
    if pd.isna(y).any():
        raise ValueError("Input y contains NaN.")
    return np.array(y.tolist())
