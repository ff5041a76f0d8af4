"""The lines of a table of gaps: one attribute's groups, compared as asked."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fairjax.metrics import _presets, definitions
from fairjax.metrics._presets import Compat, Values, rate_by_group
from fairjax.metrics._table_columns import Rows, count_rows
from fairjax.metrics.counts import GroupCounts
from fairjax.metrics.definitions import METRICS, Gap
from fairjax.metrics.inequality import differential_fairness, entropy_split
from fairjax.metrics.rates import rate_support

_OTHERS = "all others"
# Of decisions.
GAPS = {
    name: gap for name, gap in definitions.GAPS.items() if METRICS[gap.rates[0]].formula
}
# Of all rows and the attribute's groups together.
_ENTROPIES = {
    "generalized_entropy_index": (2, "total"),
    "theil_index": (1, "total"),
    "between_group_generalized_entropy_index": (2, "between"),
    "between_group_theil_index": (1, "between"),
}
WHOLE = ("differential_fairness", *_ENTROPIES)


class Setting(NamedTuple):
    """One attribute's groups, and how to compare them.

    Attributes:
      rows: The columns.
      codes: Group of each row, ``[n]``.
      names: Names of the ``G`` groups.
      pooled: 1 if the last one is not declared but the pool of all that are not the
        reference, else 0.
      counts: ``[G, 2, 2]``, weighted.
      reference: Position of the reference group, or None.
      min_support: Fewest rows under a rate.
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


def make_setting(
    rows: Rows,
    codes: np.ndarray,
    names: list[str],
    reference: int | None,
    min_support: float | int,
    compat: Compat,
) -> Setting:
    """Counts the rows; see `Setting`."""
    counts = count_rows(rows, codes, len(names))
    # AIF360 compares the privileged group with all others together.
    pooled = 0
    if compat == "aif360" and reference is not None and len(names) > 2:
        pooled = 1
        others = np.delete(counts, reference, axis=0).sum(axis=0)
        counts, names = np.append(counts, others[None], axis=0), [*names, _OTHERS]
    return Setting(rows, codes, names, pooled, counts, reference, min_support, compat)


def whole_lines(metric: str, setting: Setting) -> list[dict[str, Any]]:
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
            split = entropy_split(
                rows.labels,
                rows.predictions,
                codes,
                alpha,
                num_groups=max(declared, 2),
                weights=weights,
            )
            value = getattr(split, part)
    known = counts.sum(axis=(-2, -1)) > 0
    who = _who(setting, {"": known})
    return [_line(None, None, value, who, known.sum() >= 2)]


def pair_lines(gap: Gap, setting: Setting) -> list[dict[str, Any]]:
    """Returns the line of the widest gap, or one for each group against a reference."""
    rates = [_rate(name, setting) for name in gap.rates]
    filled = np.zeros(len(setting.names), bool)
    for name, rate in zip(gap.rates, rates, strict=True):
        filled |= ~np.isnan(rate) & np.isnan(rate_by_group(setting.counts, name))
    if setting.reference is None:
        return [_widest(gap, rates, filled, setting)]
    at = setting.reference
    # One group's gap from another is of all the rates, so it takes both groups all.
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
            line = _line(name, setting.names[at], values[g], who, comparable)
            lines.append(_flag(line, filled[g] or filled[at]))
    return lines


def _widest(
    gap: Gap,
    rates: list[np.ndarray],
    filled: np.ndarray,
    setting: Setting,
) -> dict[str, Any]:
    # fairlearn calls the gap of a single group 0.
    least = 1 if setting.compat == "fairlearn" else 2
    spreads = [_spread(gap.kind, rate, least) for rate in rates]
    value = _join(gap, [spread.value for spread in spreads], setting)
    group = against = None
    # Where one of two rates decides, its groups are the ones to name.
    own = [spread for spread in spreads if spread.value == value]
    if own and gap.joined in ("", "worst"):
        group, against = setting.names[own[0].high], setting.names[own[0].low]
    known = [~np.isnan(rate) for rate in rates]
    comparable = all(each.sum() >= least for each in known)
    # The widest gap of each rate is over the groups that have that rate.
    who = _who(setting, dict(zip(gap.rates, known, strict=True)))
    line = _line(group, against, value, who, comparable)
    return _flag(line, filled.any())


class _Spread(NamedTuple):
    value: float
    high: int
    low: int


def _spread(kind: str, rates: np.ndarray, least: int) -> _Spread:
    if (~np.isnan(rates)).sum() < least:
        return _Spread(np.nan, -1, -1)
    high, low = int(np.nanargmax(rates)), int(np.nanargmin(rates))
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "difference":
            return _Spread(rates[high] - rates[low], high, low)
        return _Spread(rates[low] / rates[high], high, low)


def _rate(name: str, setting: Setting) -> np.ndarray:
    rate = rate_by_group(setting.counts, name, setting.compat)
    if setting.compat is None:
        with jax.enable_x64(True):
            support = rate_support(GroupCounts(jnp.asarray(setting.counts)), name)
        rate = np.where(np.asarray(support) >= setting.min_support, rate, np.nan)
    return rate


def _join(gap: Gap, values: Sequence[Values], setting: Setting) -> Values:
    if not gap.joined:
        return values[0]
    positives, negatives = values
    if gap.joined != "signed":
        positives, negatives = np.abs(positives), np.abs(negatives)
    if gap.joined == "worst":
        worse = np.maximum if gap.kind == "difference" else np.minimum
        return _presets.of_two(positives, negatives, worse, setting.compat)
    return _presets.mean_of_two(positives, negatives, setting.compat)


def _who(setting: Setting, known: dict[str, np.ndarray]) -> tuple[int, tuple[str, ...]]:
    """How many declared groups take part, and who does not: in part by which rate."""
    compared, left_out = 0, []
    declared = setting.names[: len(setting.names) - setting.pooled]
    for g, name in enumerate(declared):
        lacking = [rate for rate, has in known.items() if not has[g]]
        if len(lacking) < len(known):
            compared += 1
            left_out += [f"{name} ({rate.replace('_', ' ')})" for rate in lacking]
        else:
            left_out.append(name)
    return compared, tuple(left_out)


def _line(
    group: str | None,
    against: str | None,
    value: Any,
    who: tuple[int, tuple[str, ...]],
    comparable: Any,
) -> dict[str, Any]:
    value = float(value)
    status = "ok"
    if np.isinf(value):
        status = "infinite"
    elif np.isnan(value):
        status = "undefined" if comparable else "insufficient"
    compared, left_out = who
    return {
        "group": group,
        "against": against,
        "value": value,
        "compared": compared,
        "left_out": left_out,
        "status": status,
    }


def _flag(line: dict[str, Any], filled: Any) -> dict[str, Any]:
    return {**line, "status": "filled"} if filled and line["status"] == "ok" else line
