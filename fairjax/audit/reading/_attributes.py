"""Conversion of columns to categories: as they are, as declared, or cut numbers."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from fairjax.audit._errors import AuditError, among, listed, near_miss, row_count, where
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
    """Returns the categories of an attribute, and appends to `findings`.

    Args:
        name: Name of the attribute.
        column: Values of all rows, [n].
        options: The options of the audit.
        audited: Rows that quantiles are computed from, bool [n].
        findings: List that findings on the attribute are appended to.

    Raises:
        AuditError: If there are too many categories, categories that are not declared,
            or missing values that the options refuse.
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
                f"{what} must have at most {MAX_LEVELS} categories; got "
                f"{len(levels):,} in {row_count(len(codes))}. Merge rare categories"
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
                f"{what} is missing in {where(missing)}; --missing level makes missing "
                "values a category"
            )
        if MISSING not in levels:
            levels = (*levels, MISSING)
        codes = np.where(missing, np.int32(levels.index(MISSING)), codes)
    return Grouping(name, levels, codes, binned=binned)


def too_many(name: str) -> str:
    """Returns the end of a message about values that are not categories."""
    return (
        f", far more than the {MAX_LEVELS} categories that can be compared; cut "
        f"numbers with --bins {name}=quantile:4, and leave identifiers out"
    )


def _declared(
    name: str, column: Codes, declared: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the codes of a column among its declared categories."""
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
            f"attribute {name!r} has values that --levels does not declare in "
            f"{among(total, len(column.codes))}: {listed(values)}; --levels declares "
            f"{listed(declared)}"
        )
    index = {level: i for i, level in enumerate(declared)}
    indices = [index.get(value, -1) for value in column.values]
    return np.array([*indices, -1], np.int32)[column.codes], declared


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
                f"{what} cannot be cut into quantiles, because all its values are "
                f"{number(np.nanmin(values[audited]))}"
            )
        made = len(edges) + 1
        words = f"{made} quantile groups, cut at "
        # Rows with equal values stay in one group.
        if made < bins:
            facts = {"name": name, "asked": bins, "made": made}
            findings.append(_quality.finding("fewer_quantiles", **facts))
    words += ", ".join(map(number, edges))
    if not edges:
        return np.full(len(values), -1, np.int32), (), words
    codes, levels = cut(values, edges)
    return codes, levels, words


def check_named_levels(options: Options, attributes: Sequence[Grouping]) -> None:
    """Raises AuditError if a rule names a category that does not exist."""
    levels = {attribute.name: attribute.levels for attribute in attributes}
    for rule in options.rules:
        # A rule without categories applies to every group.
        for name, level in zip(rule.attributes, rule.levels, strict=False):
            if level not in levels[name]:
                raise AuditError(
                    f"the rule {rule.text!r} names {level!r}, which is not a category "
                    f"of {name!r}{near_miss(level, levels[name])}; {name!r} has "
                    f"{listed(levels[name])}"
                )
