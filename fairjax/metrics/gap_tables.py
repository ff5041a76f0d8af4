"""Gaps of several attributes and metrics as one pandas DataFrame."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from fairjax._levels import display
from fairjax.groups import partition
from fairjax.metrics import _presets, definitions
from fairjax.metrics._presets import Compat, Values, rate_by_group
from fairjax.metrics._table_columns import Rows, count_rows, read_attributes, read_rows
from fairjax.metrics.counts import GroupCounts
from fairjax.metrics.definitions import METRICS, SIGNED, Gap
from fairjax.metrics.inequality import differential_fairness, entropy_split
from fairjax.metrics.rates import rate_support
from fairjax.types import check_choice

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
    """Returns the gaps of each attribute, with the groups that each gap compares.

    Without a reference each gap is the widest, between the groups with the highest and
    the lowest rate. With a reference there is a line for every other group. Differences
    are then signed and ratios are not clipped.

    Args:
      labels: ``[n]``, 0 or 1.
      predictions: ``[n]``, 0 or 1; scores if a threshold is given.
      attributes: As in `by_group`, but each attribute is compared separately.
      threshold: Scores at or above the threshold are positive predictions.
      gaps: Names of gaps, by default a selection. Gaps in one rate, as in
        `fairjax.metrics`: ``"demographic_parity_"``, ``"equal_opportunity_"``,
        ``"false_positive_rate_"``, ``"false_negative_rate_"`` or ``"error_rate_"``,
        followed by ``"difference"`` or ``"ratio"``; ``"predictive_parity_"``,
        ``"negative_predictive_value_"``, ``"accuracy_"`` or ``"treatment_equality_"``,
        followed by ``"difference"``. Gaps in two rates:
        ``"equalized_odds_difference"``, the larger gap, ``"equalized_odds_ratio"``, the
        smaller ratio, and either followed by ``"_mean"``. Gaps only against a
        reference: ``"statistical_parity_difference"``, ``"disparate_impact"``,
        ``"average_odds_difference"``, ``"average_absolute_odds_difference"``. Indices
        of all groups: ``"differential_fairness"``, ``"generalized_entropy_index"``
        (α = 2), ``"theil_index"``, and the last two preceded by ``"between_group_"``.
      reference: Category of a single attribute, or a mapping from attribute to
        category.
      intersections: Whether to add the crossing of all attributes, named
        ``"sex × race"``. The references are crossed too.
      weights: ``[n]``, at least 0.
      min_support: Minimum rows (sum of weights) behind a group's rate for the group to
        be compared.
      compat: ``"fairlearn"`` for the values of its metrics and of
        ``MetricFrame.difference`` and ``.ratio``, without a reference: undefined rates
        count as 0. ``"aif360"`` for the values of its ClassificationMetric, with the
        reference as privileged group. A further line, ``"all others"``, pools the other
        groups if there are several. As in AIF360, entropy indices ignore the weights,
        and the index between groups compares the reference with the others.

    Returns:
      A data frame with the columns

      - ``attribute`` and ``metric``;
      - ``group`` and ``against``: highest and lowest, or the group and the reference;
        None for a gap of more groups;
      - ``value``;
      - ``compared``: the number of groups with the rate, or with one of two rates;
      - ``left_out``: names of the omitted groups; ``"c (true positive rate)"`` for a
        group that lacks only one of two rates;
      - ``status``: ``"ok"``, ``"infinite"`` (a ratio to a rate of 0), ``"undefined"``
        (0/0), ``"insufficient"`` (too few groups to compare), or ``"filled"`` (an
        undefined rate counted as the toolkit's 0).

    Raises:
      ValueError: If a column or an option cannot be used; the message names the cause.

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
    check_choice("compat", compat, *_DEFAULTS)
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
        setting = _make_setting(rows, codes, names, at, min_support, compat)
        for gap in gaps:
            if gap in WHOLE:
                added = _whole_lines(gap, setting)
            else:
                added = _pair_lines(_PAIRED[gap], setting)
            lines += [{"attribute": name, "metric": gap, **line} for line in added]
    return pd.DataFrame(lines)


def _references(reference: Any, columns: dict[str, Any]) -> dict[str, Any] | None:
    if reference is None:
        return None
    if not isinstance(reference, Mapping):
        if len(columns) > 1:
            raise ValueError(
                "reference must be a mapping if there are several attributes; got "
                f"{reference!r}. Give {{{next(iter(columns))!r}: {reference!r}, ...}}."
            )
        reference = {next(iter(columns)): reference}
    absent = [name for name in columns if name not in reference]
    if absent:
        raise ValueError(f"reference must be given for {absent[0]!r}; got {reference}.")
    return dict(reference)


def _check_options(gaps, references, compat: Compat, min_support) -> None:
    if compat and min_support > 0:
        raise ValueError(f"{compat} has no minimum support; leave min_support out.")
    if compat == "fairlearn" and references is not None:
        raise ValueError("fairlearn has no reference group; leave reference out.")
    if compat == "aif360" and references is None:
        raise ValueError("AIF360 compares with a privileged group; give a reference.")
    for gap in gaps:
        if gap in WHOLE:
            continue
        if gap not in _PAIRED:
            known = ", ".join([*_PAIRED, *WHOLE])
            raise ValueError(f"gaps must be among {known}; got {gap!r}.")
        if gap in SIGNED and references is None:
            raise ValueError(f"{gap} needs a reference group; give a reference.")
        spec = _PAIRED[gap]
        if references is not None and spec.joined and spec.kind == "ratio":
            raise ValueError(
                f"{gap} cannot have a reference, because neither of a ratio above 1 "
                "and a ratio below 1 is worse; leave reference out."
            )
        missing = compat and set(spec.rates) - set(_presets.RATES[compat])
        if missing:
            raise ValueError(f"{compat} has no {missing.pop()}, so it has no {gap}.")


def _position(attribute: str, levels: Sequence[str], level: Any) -> int:
    if display(level) not in levels:
        raise ValueError(
            f"The reference of attribute {attribute!r} must be one of "
            f"{', '.join(map(repr, levels))}; got {level!r}."
        )
    return levels.index(display(level))


def _names(levels: Sequence[Sequence[str]]) -> list[str]:
    return [", ".join(names) for names in itertools.product(*levels)]


_OTHERS = "all others"
# Gaps in metrics of decisions.
GAPS = {
    name: gap for name, gap in definitions.GAPS.items() if METRICS[gap.rates[0]].formula
}
_PAIRED = {**GAPS, **SIGNED}
# Indices of all rows and all groups of an attribute.
_ENTROPIES = {
    "generalized_entropy_index": (2, "total"),
    "theil_index": (1, "total"),
    "between_group_generalized_entropy_index": (2, "between"),
    "between_group_theil_index": (1, "between"),
}
WHOLE = ("differential_fairness", *_ENTROPIES)


class _Setting(NamedTuple):
    """The groups of one attribute, and the options of their comparison.

    Attributes:
      rows: The columns.
      codes: Group of each row, ``[n]``.
      names: Names of the ``G`` groups.
      pooled: 1 if the last group pools all groups other than the reference, else 0.
      counts: ``[G, 2, 2]``, weighted.
      reference: Position of the reference group, or None.
      min_support: Minimum rows behind a rate.
      compat: The toolkit whose values to reproduce, or None.
    """

    rows: Rows
    codes: np.ndarray
    names: list[str]
    pooled: int
    counts: np.ndarray
    reference: int | None
    min_support: float | int
    compat: Compat


def _make_setting(
    rows: Rows,
    codes: np.ndarray,
    names: list[str],
    reference: int | None,
    min_support: float | int,
    compat: Compat,
) -> _Setting:
    """Counts the rows; see `_Setting`."""
    counts = count_rows(rows, codes, len(names))
    # AIF360 compares the privileged group with all others together.
    pooled = 0
    if compat == "aif360" and reference is not None and len(names) > 2:
        pooled = 1
        others = np.delete(counts, reference, axis=0).sum(axis=0)
        counts, names = np.append(counts, others[None], axis=0), [*names, _OTHERS]
    return _Setting(rows, codes, names, pooled, counts, reference, min_support, compat)


def _whole_lines(metric: str, setting: _Setting) -> list[dict[str, Any]]:
    """Returns the line of a metric of all groups at once."""
    rows, codes, weights = setting.rows, setting.codes, setting.rows.weights
    declared = len(setting.names) - setting.pooled
    counts = setting.counts[:declared]
    if setting.compat == "aif360":
        weights = None
        codes = (codes != setting.reference).astype(np.int32)
    with jax.enable_x64(True):
        if metric == "differential_fairness":
            value = differential_fairness(GroupCounts(jnp.asarray(counts)))
        else:
            alpha, part = _ENTROPIES[metric]
            columns = rows.labels, rows.predictions, codes, alpha
            split = entropy_split(
                *columns, num_groups=max(declared, 2), weights=weights
            )
            value = getattr(split, part)
    known = counts.sum(axis=(-2, -1)) > 0
    who = _who(setting, {"": known})
    return [_line(None, None, value, who, known.sum() >= 2)]


def _pair_lines(gap: Gap, setting: _Setting) -> list[dict[str, Any]]:
    """Returns the line of the widest gap, or a line for each gap from the reference."""
    rates = [_rate(name, setting) for name in gap.rates]
    filled = np.zeros(len(setting.names), bool)
    for name, rate in zip(gap.rates, rates, strict=True):
        filled |= ~np.isnan(rate) & np.isnan(rate_by_group(setting.counts, name))
    if setting.reference is None:
        return [_widest(gap, rates, filled, setting)]
    at = setting.reference
    # The gap between two groups needs all rates of both groups.
    known = np.logical_and.reduce([~np.isnan(rate) for rate in rates])
    who = _who(setting, {"": known})
    with np.errstate(divide="ignore", invalid="ignore"):
        if gap.kind == "difference":
            values = [rate - rate[at] for rate in rates]
        else:
            values = [rate / rate[at] for rate in rates]
    values = np.asarray(_join(gap, values, setting))
    lines = []
    for g, name in enumerate(setting.names):
        if g != at:
            comparable = bool(known[g] and known[at])
            replaced = filled[g] or filled[at]
            lines.append(
                _line(name, setting.names[at], values[g], who, comparable, replaced)
            )
    return lines


def _widest(
    gap: Gap, rates: list[np.ndarray], filled: np.ndarray, setting: _Setting
) -> dict[str, Any]:
    # In fairlearn the gap of a single group is 0.
    least = 1 if setting.compat == "fairlearn" else 2
    spreads = [_spread(gap.kind, rate, least) for rate in rates]
    value = _join(gap, [spread for spread, *_ in spreads], setting)
    group = against = None
    # If one of two rates has the gap, the line names the groups of that rate.
    ends = [(high, low) for spread, high, low in spreads if spread == value]
    if ends and gap.joined in ("", "worst"):
        group, against = (setting.names[end] for end in ends[0])
    known = [~np.isnan(rate) for rate in rates]
    comparable = all(each.sum() >= least for each in known)
    # The widest gap in each rate covers the groups that have the rate.
    who = _who(setting, dict(zip(gap.rates, known, strict=True)))
    return _line(group, against, value, who, comparable, filled.any())


def _spread(kind: str, rates: np.ndarray, least: int) -> tuple[float, int, int]:
    """Returns the gap, and the groups with the highest and the lowest rate."""
    if (~np.isnan(rates)).sum() < least:
        return np.nan, -1, -1
    high, low = int(np.nanargmax(rates)), int(np.nanargmin(rates))
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "difference":
            return rates[high] - rates[low], high, low
        return rates[low] / rates[high], high, low


def _rate(name: str, setting: _Setting) -> np.ndarray:
    rate = rate_by_group(setting.counts, name, setting.compat)
    if setting.compat is None:
        with jax.enable_x64(True):
            support = rate_support(GroupCounts(jnp.asarray(setting.counts)), name)
        rate = np.where(np.asarray(support) >= setting.min_support, rate, np.nan)
    return rate


def _join(gap: Gap, values: Sequence[Values], setting: _Setting) -> Values:
    if not gap.joined:
        return values[0]
    positives, negatives = values
    if gap.joined != "signed":
        positives, negatives = np.abs(positives), np.abs(negatives)
    if gap.joined == "worst":
        worse = np.maximum if gap.kind == "difference" else np.minimum
        return _presets.of_two(positives, negatives, worse, setting.compat)
    return _presets.mean_of_two(positives, negatives, setting.compat)


def _who(setting: _Setting, known: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns the number of groups compared, and names of omitted groups and rates."""
    compared, left_out = 0, []
    declared = setting.names[: len(setting.names) - setting.pooled]
    for g, name in enumerate(declared):
        lacking = [rate for rate, has in known.items() if not has[g]]
        if len(lacking) < len(known):
            compared += 1
            left_out += [f"{name} ({rate.replace('_', ' ')})" for rate in lacking]
        else:
            left_out.append(name)
    return {"compared": compared, "left_out": tuple(left_out)}


def _line(
    group: str | None,
    against: str | None,
    value: Any,
    who: dict[str, Any],
    comparable: Any,
    filled: Any = False,
) -> dict[str, Any]:
    value = float(value)
    status = "filled" if filled else "ok"
    if np.isinf(value):
        status = "infinite"
    elif np.isnan(value):
        status = "undefined" if comparable else "insufficient"
    return {"group": group, "against": against, "value": value, **who, "status": status}
