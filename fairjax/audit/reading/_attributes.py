"""Columns of attributes to levels: as they are, as declared, or of numbers cut."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from fairjax.audit._errors import AuditError, listed, near_miss, row_count, share
from fairjax.audit.options import MAX_LEVELS, Options
from fairjax.audit.reading import _quality
from fairjax.audit.reading._columns import Codes
from fairjax.audit.reading.binning import cut, number, quantile_edges
from fairjax.audit.reading.data import Attribute, Finding

MISSING: Final = "missing"


def attribute(
    name: str,
    column: np.ndarray | Codes,
    options: Options,
    audited: np.ndarray,
    findings: list[Finding],
) -> Attribute:
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
    missing = int(np.count_nonzero(codes < 0))
    if missing == len(codes):
        raise AuditError(f"{what} is missing in all {row_count(missing)}")
    if missing and options.missing == "refuse":
        first = int(np.argmax(codes < 0)) + 1
        raise AuditError(
            f"{what} is missing in {share(missing, len(codes))}, first in data row "
            f"{first:,}; --missing level makes that a level of its own"
        )
    if missing:
        if MISSING not in levels:
            levels = (*levels, MISSING)
        codes = np.where(codes < 0, np.int32(levels.index(MISSING)), codes)
    return Attribute(name, levels, codes, binned)


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
        raise AuditError(
            f"{what} is infinite in "
            f"{share(int(np.count_nonzero(infinite)), len(values))}, first in data row "
            f"{int(np.argmax(infinite)) + 1:,}"
        )
    bins = options.bins[name]
    if not isinstance(bins, int):
        edges = bins
        words = "cut at " + ", ".join(number(edge) for edge in edges)
    else:
        edges = quantile_edges(values[audited], bins)
        if not edges and not np.isnan(values[audited]).all():
            raise AuditError(
                f"{what} cannot be cut into quantiles: it is "
                f"{number(np.nanmin(values[audited]))} wherever it is known"
            )
        words = f"{len(edges) + 1} quantile groups, cut at " + ", ".join(
            number(edge) for edge in edges
        )
        findings += _quality.of_quantiles(name, bins, len(edges) + 1)
    if not edges:
        return np.full(len(values), -1, np.int32), (), words
    codes, levels = cut(values, edges)
    return codes, levels, words


def check_named_levels(options: Options, attributes: Sequence[Attribute]) -> None:
    """Raises AuditError if a rule names a level that there is not."""
    levels = {attribute.name: attribute.levels for attribute in attributes}
    named: list[tuple[str, str, str]] = []
    for rule in options.rules:
        pairs = zip(rule.attributes, rule.levels, strict=False)
        named += [(f"the rule {rule.text!r}", name, of) for name, of in pairs]
    for where, name, level in named:
        if level not in levels[name]:
            raise AuditError(
                f"{where} names {level!r}, which is no level of {name!r}"
                f"{near_miss(level, levels[name])}; it has {listed(levels[name])}"
            )
