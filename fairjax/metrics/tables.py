"""Tables by group: every rate and count as a pandas DataFrame.

The functions of arrays compute in float32 inside ``jit``. The functions of tables run
once, on the host, in float64, and name groups by their categories. Groups are declared,
so a category without rows keeps its line. With ``compat`` the tables reproduce the
values of fairlearn or AIF360, including the values for undefined rates.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd

from fairjax.groups import partition
from fairjax.metrics import _presets
from fairjax.metrics._presets import Compat, rate_by_group
from fairjax.metrics._table_columns import (
    Rows,
    count_rows,
    read_attributes,
    read_rows,
    refuse,
)
from fairjax.metrics.calibration import group_brier, group_calibration_error
from fairjax.metrics.curves import group_auprc
from fairjax.metrics.ranking import group_auroc
from fairjax.metrics.rates import RATES
from fairjax.metrics.recalibration import logistic_recalibration
from fairjax.types import check_choice

_SCORE_METRICS = {
    "auroc": group_auroc,
    "auprc": group_auprc,
    "brier_score": group_brier,
    "expected_calibration_error": group_calibration_error,
    "calibration_intercept": logistic_recalibration,
    "calibration_slope": logistic_recalibration,
}
_OF_RISKS = frozenset(_SCORE_METRICS) - {"auroc", "auprc"}
_DEFAULT = (
    "selection_rate",
    "true_positive_rate",
    "false_positive_rate",
    "positive_predictive_value",
    "accuracy",
)
_OVERALL = "overall"


def by_group(
    labels: Any,
    predictions: Any,
    attributes: Any,
    *,
    threshold: float | int | None = None,
    metrics: Sequence[str] = _DEFAULT,
    weights: Any = None,
    min_positives: int = 0,
    min_negatives: int = 0,
    overall: bool = False,
    compat: Compat = None,
) -> pd.DataFrame:
    """Returns counts and metrics of every group, or intersection of attributes.

    Args:
      labels: ``[n]``, 0 or 1.
      predictions: ``[n]``, 0 or 1; scores if a threshold is given.
      attributes: A column, or a data frame or mapping of several columns, which are
        crossed. Columns are matched by position, not by index. `fairjax.partition`
        describes how values become categories: missing values form their own category.
      threshold: Scores at or above the threshold are positive predictions.
      metrics: Names of rates, as in `fairjax.metrics.rates`; with scores also
        ``"auroc"`` and ``"auprc"``, and with probabilities ``"brier_score"``,
        ``"expected_calibration_error"`` (in ten bins of equal mass),
        ``"calibration_intercept"`` (in the large) and ``"calibration_slope"``.
      weights: ``[n]``, at least 0. Metrics are weighted, counts of rows are not.
      min_positives: Minimum positives for a group to be sufficient. A group without
        positives is never sufficient.
      min_negatives: Minimum negatives, likewise.
      overall: Whether to add a last line for all rows.
      compat: ``"fairlearn"`` for the values by group of its MetricFrame with
        scikit-learn's functions: 0 for a rate with a zero denominator. ``"aif360"`` for
        the values of its ClassificationMetric: 0 for predictive values with a zero
        denominator, NaN for other rates.

    Returns:
      One line for each group, indexed by category, or by the categories of each
      attribute. Columns are ``rows``, ``positives``, ``negatives``, the metrics, and
      ``status``: ``"ok"``, ``"insufficient"`` (too few positives or negatives), or
      ``"empty"``.

    Raises:
      ValueError: If a column or an option cannot be used; the message names the cause.

    Example:
      >>> table = by_group([1, 0, 1, 0], [1, 0, 0, 0], {"sex": list("ffmm")})
      >>> table[["rows", "true_positive_rate", "status"]]
           rows  true_positive_rate status
      sex
      f       2                 1.0     ok
      m       2                 0.0     ok
    """
    rows = read_rows(labels, predictions, threshold, weights)
    _check_metrics(metrics, rows, compat)
    columns = read_attributes(attributes, len(rows.labels))
    groups = partition(columns, single_level="allow")
    codes = groups.encode(columns)
    index = pd.MultiIndex.from_product(groups.levels, names=groups.attributes)
    lines = _lines(rows, codes, groups.num_cells, metrics, compat)
    if overall:
        if any(_OVERALL in levels for levels in groups.levels):
            raise ValueError(f"Rename the category {_OVERALL!r} or leave overall out.")
        everyone = np.zeros(len(codes), np.int32)
        whole = _lines(rows, everyone, 1, metrics, compat)
        lines = {name: np.append(lines[name], whole[name]) for name in lines}
        last = [(_OVERALL,) * index.nlevels]
        index = index.append(pd.MultiIndex.from_tuples(last, names=index.names))
    if index.nlevels == 1:
        index = index.get_level_values(0)
    table = pd.DataFrame(lines, index=index)
    enough = (table["positives"] >= max(min_positives, 1)) & (
        table["negatives"] >= max(min_negatives, 1)
    )
    status = np.where(enough, "ok", "insufficient")
    return table.assign(status=np.where(table["rows"] > 0, status, "empty"))


def _check_metrics(metrics: Sequence[str], rows: Rows, compat: Compat) -> None:
    check_choice("compat", compat, None, "fairlearn", "aif360")
    known = RATES if compat is None else _presets.RATES[compat]
    if compat is None and rows.scores is not None:
        known = (*known, *_SCORE_METRICS)
    unknown = [name for name in metrics if name not in known]
    if unknown:
        whose = f" with compat={compat!r}" if compat else ""
        scored = compat is None and unknown[0] in _SCORE_METRICS
        needs = ", which needs scores and a threshold" if scored else ""
        raise ValueError(
            f"metrics must be among {', '.join(known)}{whose}; got "
            f"{unknown[0]!r}{needs}."
        )
    of_risks = [name for name in metrics if name in _OF_RISKS]
    if of_risks and rows.scores is not None:
        outside = (rows.scores < 0) | (rows.scores > 1)
        refuse("scores", outside, f"in [0, 1] for {of_risks[0]}")


def _lines(
    rows: Rows, codes: np.ndarray, num_groups: int, metrics: Sequence[str], compat: Any
) -> dict[str, np.ndarray]:
    """Returns counts of rows and the metrics by group, each ``[G]``."""
    tally = np.bincount(2 * codes + rows.labels, minlength=2 * num_groups)
    negatives, positives = tally.reshape(num_groups, 2).T
    lines = {"rows": negatives + positives}
    lines |= {"positives": positives, "negatives": negatives}
    counts = count_rows(rows, codes, num_groups)
    for name in metrics:
        if name in _SCORE_METRICS and rows.scores is not None:
            columns = rows.labels, rows.scores, codes
            options = {"num_groups": num_groups, "weights": rows.weights}
            with jax.enable_x64(True):
                value = _SCORE_METRICS[name](*columns, **options)
                field = name.removeprefix("calibration_")
                lines[name] = np.asarray(getattr(value, field, value))
        else:
            lines[name] = rate_by_group(counts, name, compat)
    return lines
