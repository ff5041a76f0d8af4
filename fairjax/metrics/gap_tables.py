"""Gaps of several attributes and metrics as one pandas DataFrame."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fairjax._levels import display
from fairjax.groups import partition
from fairjax.metrics import _presets
from fairjax.metrics._gap_lines import (
    GAPS,
    WHOLE,
    make_setting,
    pair_lines,
    whole_lines,
)
from fairjax.metrics._presets import Compat
from fairjax.metrics._table_columns import read_attributes, read_rows
from fairjax.metrics.definitions import SIGNED

_DEFAULTS = {
    None: (
        "demographic_parity_difference",
        "demographic_parity_ratio",
        "equal_opportunity_difference",
        "false_positive_rate_difference",
        "equalized_odds_difference",
        "predictive_parity_difference",
        "accuracy_difference",
    ),
    "fairlearn": (
        "demographic_parity_difference",
        "demographic_parity_ratio",
        "equal_opportunity_difference",
        "equal_opportunity_ratio",
        "equalized_odds_difference",
        "equalized_odds_ratio",
    ),
    "aif360": (
        "statistical_parity_difference",
        "disparate_impact",
        "equal_opportunity_difference",
        "average_odds_difference",
        "average_absolute_odds_difference",
        "theil_index",
    ),
}


def gap_table(
    labels: Any,
    predictions: Any,
    attributes: Any,
    *,
    threshold: float | int | None = None,
    gaps: Sequence[str] | None = None,
    reference: Any = None,
    intersections: bool = False,
    weights: Any = None,
    min_support: float | int = 0,
    compat: Compat = None,
) -> pd.DataFrame:
    """Gaps of each attribute, with the groups that they lie between.

    Without a reference each gap is the widest one, of the groups with the highest and
    the lowest rate. With one there is a line for every other group, and differences are
    signed, ratios not clipped.

    Args:
      labels: ``[n]``, 0 or 1.
      predictions: ``[n]``, 0 or 1; scores if a threshold is given.
      attributes: As in `by_group`, but each attribute is compared on its own.
      threshold: Scores of at least this are positive predictions.
      gaps: Names of gaps, by default a selection. Of one rate, as `fairjax.metrics` has
        them: ``"demographic_parity_"``, ``"equal_opportunity_"``,
        ``"false_positive_rate_"``, ``"false_negative_rate_"`` or ``"error_rate_"``
        with ``"difference"`` or ``"ratio"`` after it; ``"predictive_parity_"``,
        ``"negative_predictive_value_"``, ``"accuracy_"`` or ``"treatment_equality_"``
        with ``"difference"``. Of two rates: ``"equalized_odds_difference"``, the larger
        gap, ``"equalized_odds_ratio"``, the smaller ratio, and ``"_mean"`` after
        either. Against a reference only: ``"statistical_parity_difference"``,
        ``"disparate_impact"``, ``"average_odds_difference"``,
        ``"average_absolute_odds_difference"``. Of all groups at once:
        ``"differential_fairness"``, ``"generalized_entropy_index"`` (α = 2),
        ``"theil_index"``, and ``"between_group_"`` before the last two.
      reference: Level of the one attribute, or a mapping from attribute to level.
      intersections: Whether to add the crossing of all attributes, named
        ``"sex × race"``; a reference is then the crossing of the references.
      weights: ``[n]``, at least 0.
      min_support: Fewest rows (sum of weights) under a group's rate for the group to
        be compared.
      compat: ``"fairlearn"`` for the values of its metrics and of
        ``MetricFrame.difference`` and ``.ratio``, without a reference: rates that do
        not exist take part as 0. ``"aif360"`` for those of its ClassificationMetric,
        whose privileged group is the reference; one more line, ``"all others"``, pools
        the other groups if there are several. Like AIF360's, its entropy indices leave
        the weights out, and that between groups is of the reference and the others.

    Returns:
      Columns ``attribute``, ``metric``, ``group`` and ``against`` (highest and lowest,
      or the group and the reference; None for a gap of more groups), ``value``,
      ``compared`` (how many groups have the rate, or one of two), ``left_out`` (names
      of those that do not; ``"c (true positive rate)"`` for one that takes part in the
      other of two rates), ``status``: ``"ok"``, ``"infinite"`` (a ratio to a rate of
      0), ``"undefined"`` (0/0), ``"insufficient"`` (too few groups to compare), or
      ``"filled"`` (a rate that does not exist took part as the toolkit's 0).

    Raises:
      ValueError: If a column or an option cannot be used; the message says which.

    Example:
      >>> table = gap_table(
      ...     [1, 0, 1, 0], [1, 0, 0, 0], {"sex": list("ffmm")},
      ...     gaps=["equal_opportunity_difference"],
      ... )
      >>> print(table[["group", "against", "value", "status"]].to_string(index=False))
      group against  value status
          f       m    1.0     ok
    """
    rows = read_rows(labels, predictions, threshold, weights)
    columns = read_attributes(attributes, len(rows.labels))
    references = _references(reference, columns)
    if compat not in _DEFAULTS:
        raise ValueError(f"compat must be 'fairlearn' or 'aif360', got {compat!r}.")
    gaps = _DEFAULTS[compat] if gaps is None else gaps
    _check_options(gaps, references, compat, min_support)
    named = {name: {name: column} for name, column in columns.items()}
    if intersections and len(columns) > 1:
        named[" × ".join(columns)] = columns
    lines = []
    for name, crossed in named.items():
        groups = partition(crossed, single_level="allow")
        codes = groups.encode(crossed)
        names, shape = _names(groups.levels), tuple(map(len, groups.levels))
        at = None
        if references is not None:
            chosen = [
                _position(attribute, levels, references[attribute])
                for attribute, levels in zip(crossed, groups.levels, strict=True)
            ]
            at = int(np.ravel_multi_index(chosen, shape))
        setting = make_setting(rows, codes, names, at, min_support, compat)
        for gap in gaps:
            if gap in WHOLE:
                found = whole_lines(gap, setting)
            else:
                found = pair_lines({**GAPS, **SIGNED}[gap], setting)
            lines += [{"attribute": name, "metric": gap, **line} for line in found]
    return pd.DataFrame(lines)


def _references(reference: Any, columns: dict[str, Any]) -> dict[str, Any] | None:
    if reference is None:
        return None
    if not isinstance(reference, Mapping):
        if len(columns) > 1:
            raise ValueError(
                "With several attributes, give the reference of each: "
                f"reference={{{next(iter(columns))!r}: {reference!r}, ...}}."
            )
        reference = {next(iter(columns)): reference}
    absent = [name for name in columns if name not in reference]
    if absent:
        raise ValueError(f"There is no reference for attribute {absent[0]!r}.")
    return dict(reference)


def _check_options(gaps, references, compat: Compat, min_support) -> None:
    if compat and min_support > 0:
        raise ValueError(f"{compat} knows no smallest support; leave min_support out.")
    if compat == "fairlearn" and references is not None:
        raise ValueError("fairlearn knows no reference group; leave reference out.")
    if compat == "aif360" and references is None:
        raise ValueError("AIF360 compares with a privileged group; give a reference.")
    for gap in gaps:
        if gap in WHOLE:
            continue
        if gap not in GAPS and gap not in SIGNED:
            known = ", ".join([*GAPS, *SIGNED, *WHOLE])
            raise ValueError(f"There is no gap {gap!r}; there are {known}.")
        if gap in SIGNED and references is None:
            raise ValueError(f"{gap} is against a reference group; give a reference.")
        spec = {**GAPS, **SIGNED}[gap]
        if references is not None and spec.joined and spec.kind == "ratio":
            raise ValueError(
                f"{gap} has no reference: of two ratios that are not clipped, "
                "one above and one below 1, neither is the worse."
            )
        missing = compat and set(spec.rates) - set(_presets.RATES[compat])
        if missing:
            raise ValueError(f"{compat} has no {missing.pop()}, so it has no {gap}.")


def _position(attribute: str, levels: Sequence[str], level: Any) -> int:
    if display(level) not in levels:
        raise ValueError(
            f"Attribute {attribute!r} has no level {level!r} to be the reference; it "
            f"has {', '.join(map(repr, levels))}."
        )
    return levels.index(display(level))


def _names(levels: Sequence[Sequence[str]]) -> list[str]:
    return [", ".join(names) for names in itertools.product(*levels)]
