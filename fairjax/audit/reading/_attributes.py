"""Columns of attributes to levels: as they are, as declared, or of numbers cut."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from fairjax.audit._errors import AuditError, listed, near_miss, row_count, share, where
from fairjax.audit.options import MAX_LEVELS, Options
from fairjax.audit.reading import _quality
from fairjax.audit.reading._columns import Codes
from fairjax.audit.reading.binning import cut, number, quantile_edges
from fairjax.audit.reading.data import Finding
from fairjax.groups import Grouping

MISSING: Final = "missing"


def attribute(
    name: str,
    column: np.ndarray | Codes,
    options: Options,
    audited: np.ndarray,
    findings: list[Finding],
) -> Grouping:
    """Returns an attribute's levels; what should be known of them joins `findings`.

    Quantiles are those of the audited rows, bool [n].

    Raises:
        AuditError: If the levels are too many, not as declared, or missing.
    """
    what = f"attribute {name!r}"
    binned = None
    if isinstance(column, Codes):
        codes, levels = column.codes, column.values
        if name in options.levels:
            codes, levels = _declared(name, column, tuple(options.levels[name]))
        elif len(levels) > MAX_LEVELS:
            number_hint = f", or cut it with --bins {name}=quantile:4"
            raise AuditError(
                f"{what} has {len(levels):,} levels in {row_count(len(codes))}, more "
                f"than {MAX_LEVELS}: merge rare ones in the table"
                + (number_hint if column.numeric else ", or leave identifiers out")
            )
        findings += _quality.of_levels(name, levels)
    else:
        codes, levels, binned = _binned(name, column, options, audited, findings)
    missing = codes < 0
    if missing.all():
        raise AuditError(f"{what} is missing in all {row_count(len(codes))}")
    if missing.any():
        if options.missing == "refuse":
            raise AuditError(
                f"{what} is missing in {where(missing)}; --missing level makes that a "
                "level of its own"
            )
        if MISSING not in levels:
            levels = (*levels, MISSING)
        codes = np.where(missing, np.int32(levels.index(MISSING)), codes)
    return Grouping(name, levels, codes, binned=binned)


def too_many(name: str) -> str:
    """Returns the end of a message about values that are no categories."""
    return (
        f", far more than the {MAX_LEVELS} levels that can be compared; cut numbers "
        f"with --bins {name}=quantile:4, and leave identifiers out"
    )


def _declared(
    name: str, column: Codes, declared: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The codes among the levels that were declared."""
    counts = np.bincount(column.codes + 1, minlength=len(column.values) + 1)[1:]
    strays = [
        (value, int(count))
        for value, count in zip(column.values, counts, strict=True)
        if value not in declared and count
    ]
    if strays:
        total = sum(count for _, count in strays)
        values = [value for value, _ in strays]
        raise AuditError(
            f"attribute {name!r} has levels that --levels does not declare in "
            f"{share(total, len(column.codes))}: {listed(values)}; declared are "
            f"{listed(declared)}"
        )
    place = {level: i for i, level in enumerate(declared)}
    places = [place.get(value, -1) for value in column.values]
    return np.array([*places, -1], np.int32)[column.codes], declared


def _binned(
    name: str,
    values: np.ndarray,
    options: Options,
    audited: np.ndarray,
    findings: list[Finding],
) -> tuple[np.ndarray, tuple[str, ...], str]:
    what = f"attribute {name!r}"
    infinite = np.isinf(values)
    if infinite.any():
        raise AuditError(f"{what} is infinite in {where(infinite)}")
    bins = options.bins[name]
    if not isinstance(bins, int):
        edges, words = bins, "cut at "
    else:
        edges = quantile_edges(values[audited], bins)
        if not edges and not np.isnan(values[audited]).all():
            raise AuditError(
                f"{what} cannot be cut into quantiles: it is "
                f"{number(np.nanmin(values[audited]))} wherever it is known"
            )
        made = len(edges) + 1
        words = f"{made} quantile groups, cut at "
        # Values that many rows share are not parted.
        if made < bins:
            facts = {"name": name, "asked": bins, "made": made}
            findings.append(_quality.finding("fewer_quantiles", **facts))
    words += ", ".join(map(number, edges))
    if not edges:
        return np.full(len(values), -1, np.int32), (), words
    codes, levels = cut(values, edges)
    return codes, levels, words


def check_named_levels(options: Options, attributes: Sequence[Grouping]) -> None:
    """Raises AuditError if a rule names a level that there is not."""
    levels = {attribute.name: attribute.levels for attribute in attributes}
    for rule in options.rules:
        # A rule without levels is about every group.
        for name, level in zip(rule.attributes, rule.levels, strict=False):
            if level not in levels[name]:
                raise AuditError(
                    f"the rule {rule.text!r} names {level!r}, which is no level of "
                    f"{name!r}{near_miss(level, levels[name])}; it has "
                    f"{listed(levels[name])}"
                )
