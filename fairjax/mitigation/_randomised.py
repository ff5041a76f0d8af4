"""What classifiers that decide by chance have in common: expectations, with no draw."""

from abc import abstractmethod
from typing import Any

import numpy as np
import pandas as pd

from fairjax.metrics import GroupCounts
from fairjax.mitigation._extra import mitigation_extra
from fairjax.mitigation._outcomes import is_positive, rates_by_group
from fairjax.mitigation._sensitive import Groups
from fairjax.mitigation.decision_rules import expected_counts

with mitigation_extra():
    from sklearn.utils.validation import check_is_fitted


class RandomisedMixin:
    """Expected counts and rates of a classifier with chances.

    Once fitted it has ``classes_``, ``group_names_`` and ``counts_``, and its groups as
    ``_groups``.
    """

    classes_: np.ndarray
    group_names_: tuple[str, ...]
    counts_: GroupCounts
    _groups: Groups

    def expected_counts(
        self, X: Any, y: Any, *, sensitive_features: Any, sample_weight: Any = None
    ) -> GroupCounts:
        """Confusion counts ``[G, 2, 2]`` expected of other rows, with no draw.

        Every rate and gap of :mod:`fairjax.metrics` reads them.

        Args:
          X: ``[n, d]``.
          y: ``[n]``, of the classes seen at fit.
          sensitive_features: As at fit, also where deciding needs none.
          sample_weight: ``[n]``, at least 0.

        Raises:
          ValueError: Other columns, classes or groups than at fit.
        """
        positive = self._positive(y)
        chance = self._chance(X, sensitive_features)
        return expected_counts(
            positive.astype(np.int64),
            chance,
            self._groups.known(sensitive_features, rows=len(chance)),
            num_groups=len(self.group_names_),
            weights=sample_weight,
        )

    def report(self) -> pd.DataFrame:
        """Expected rates of each group on the rows of the fit, a row a group."""
        check_is_fitted(self, "counts_")
        return rates_by_group(self.counts_, self.group_names_)

    @abstractmethod
    def _chance(self, X: Any, sensitive_features: Any) -> np.ndarray:
        """``[n]``, of the second class."""

    def _positive(self, y: Any) -> np.ndarray:
        check_is_fitted(self, "counts_")
        return is_positive(y, self.classes_)
