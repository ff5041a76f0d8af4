"""Findings: unusual data that readers of the report should know."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

import numpy as np
import pandas as pd

from fairjax.audit._errors import among
from fairjax.audit._templates import titled
from fairjax.audit.reading._columns import Codes
from fairjax.audit.reading.data import AuditData, Finding, Model
from fairjax.groups import Grouping

# Beyond this fraction of either outcome, most metrics of small groups are noise.
_RARE: Final = 0.01
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


def finding(code: str, rows: int | None = None, **facts: Any) -> Finding:
    """Returns the finding of a code, with its text from ``words/findings.txt``."""
    severity, template = titled("findings")[code]
    return Finding(cast(Any, severity), code, template.render(facts), rows)


def of_levels(name: str, levels: Sequence[str]) -> Iterator[Finding]:
    """Yields findings on the names of an attribute's categories."""
    similar: dict[str, list[str]] = {}
    for level in levels:
        similar.setdefault(" ".join(level.split()).casefold(), []).append(level)
    for same in similar.values():
        if len(same) > 1:
            yield finding("similar_levels", name=name, levels=same)
    formulas = [level for level in levels if level.startswith(_FORMULA_STARTS)]
    if formulas:
        yield finding("formula_like_levels", name=name, levels=formulas)


def of_split(
    validation: tuple[str, str],
    split: Codes,
    chosen_on: np.ndarray,
    keep: np.ndarray,
    patients: np.ndarray | None,
    floor: int,
) -> Iterator[Finding]:
    """Yields findings on the audited rows and the rows that chose the threshold.

    Args:
        validation: Column and value of the rows that chose the threshold.
        split: The values of this column.
        chosen_on: Rows that chose the threshold, bool [n].
        keep: Rows with outcome and scores, bool [n].
        patients: Key of each row's patient, [n]; None if unknown.
        floor: The smallest count that may be shown. If above 0, findings have no
            numbers of rows.
    """
    column, value = validation
    audited = keep & ~chosen_on
    counts = np.bincount(split.codes[audited] + 1, minlength=len(split.values) + 1)
    names = [*(f"{column} = {name}" for name in split.values), f"no {column}"]
    others = [
        name if floor else f"{name} ({count:,})"
        for name, count in zip(names, np.roll(counts, -1).tolist(), strict=True)
        if count
    ]
    if len(others) > 1:
        rows = int(np.count_nonzero(audited))
        facts = {"split": f"{column} = {value}", "others": others}
        yield finding("several_splits", rows, **facts)
    if patients is not None:
        codes, unique = pd.factorize(patients)
        in_both = np.bincount(codes[chosen_on], minlength=len(unique)) > 0
        in_both &= np.bincount(codes[audited], minlength=len(unique)) > 0
        number = int(np.count_nonzero(in_both))
        if number:
            rows = None if floor else int(np.count_nonzero(in_both[codes] & audited))
            facts = {"hidden": floor > 0, "patients": number}
            yield finding("patients_in_both_splits", rows, **facts)


def of_data(data: AuditData, suppress_below: int) -> Iterator[Finding]:
    """Yields findings on the audited rows.

    If `suppress_below` is above 0, findings have no numbers of rows or patients of a
    group, because the suppressed groups are not known yet.
    """
    rows = len(data.labels)
    for why, count in data.rows_left_out.items():
        severity = "warning" if why.endswith("missing") else "info"
        message = f"Left out: {among(count, data.rows_read)} ({why})."
        yield Finding(severity, "rows_left_out", message, count)
    positives = int(np.count_nonzero(data.labels))
    if not _RARE <= positives / rows <= 1 - _RARE:
        rarer = min(positives, rows - positives)
        yield finding("extreme_prevalence", rarer, positives=positives, of=rows)
    for model in data.models:
        yield from _of_model(model)
    baseline, *others = data.models
    for model in others:
        if np.array_equal(model.scores, baseline.scores):
            names = {"name": model.name, "baseline": baseline.name}
            yield finding("identical_models", rows, **names)
    for attribute in data.attributes:
        yield from _of_attribute(attribute, data, suppress_below > 0)
    yield from _of_repetition(data)


def _of_model(model: Model) -> Iterator[Finding]:
    name, scores, rows = model.name, model.scores, len(model.scores)
    if model.threshold_source == "default":
        yield finding("default_threshold", name=name)
    constant = bool(scores.min() == scores.max())
    if constant:
        yield finding("constant_score", rows, name=name, score=scores[0])
    elif bool(np.all((scores == 0) | (scores == 1))):
        yield finding("binary_score", rows, name=name)
    flagged = int(np.count_nonzero(model.decisions))
    if flagged in (0, rows) and not constant:
        facts = {"name": name, "flagged": flagged, "threshold": model.threshold}
        yield finding("one_sided_decisions", rows, **facts)


def _of_attribute(
    attribute: Grouping, data: AuditData, hidden: bool
) -> Iterator[Finding]:
    name, levels, rows = attribute.name, attribute.levels, len(data.labels)
    counts = np.bincount(attribute.codes, minlength=len(levels))
    # Labels are 0 and 1, so that a weighted count is exact.
    positives = np.bincount(attribute.codes[data.labels > 0], minlength=len(levels))

    def counted(code: str, number: int, **facts: Any) -> Finding:
        """Returns a finding without its number of rows if counts are hidden."""
        rows = None if hidden else number
        return finding(code, rows, name=name, hidden=hidden, **facts)

    lacking = int(counts[levels.index("missing")]) if "missing" in levels else 0
    if lacking:
        yield counted("missing_attribute", lacking, lacking=lacking, of=rows)
    if np.count_nonzero(counts) < 2:
        level = levels[int(np.argmax(counts))]
        yield finding("single_group", rows, name=name, level=level)
    empty = [level for level, count in zip(levels, counts, strict=True) if not count]
    if empty:
        yield finding("empty_groups", 0, name=name, levels=empty)
    for wording, without in (
        ("with", positives == 0),
        ("without", positives == counts),
    ):
        which = np.flatnonzero(without & (counts > 0))
        concerned = int(counts[which].sum())
        if concerned:
            facts = {"with": wording, "levels": [levels[i] for i in which]}
            yield counted("one_class_groups", concerned, **facts)
    changing = data.varying(attribute)
    if changing.any():
        concerned = int(np.count_nonzero(changing[data.patients]))
        number = int(np.count_nonzero(changing))
        facts = {"changing": number, "patients": data.num_patients}
        yield counted("inconsistent_attribute", concerned, **facts)


def _of_repetition(data: AuditData) -> Iterator[Finding]:
    rows, known = len(data.labels), data.patients is not None
    if data.patients is not None and data.num_patients is not None:
        several = np.bincount(data.patients)
        most, several = int(several.max()), several[several > 1]
        if len(several):
            facts = {"repeated": len(several), "patients": data.num_patients}
            concerned = int(several.sum())
            yield finding("several_rows_per_patient", concerned, most=most, **facts)
    predicted = [model.scores for model in data.models]
    rest = [data.labels, *(attribute.codes for attribute in data.attributes)]
    if data.patients is not None:
        rest.append(data.patients)
    # Without an identifier, equal rows are repeats only if scores are so fine that two
    # patients seldom have equal scores.
    elif 2 * _distinct(predicted) < rows:
        return
    repeats = rows - _distinct([*predicted, *rest])
    if repeats:
        yield finding("duplicate_rows", repeats, repeats=repeats, of=rows, known=known)


def _distinct(columns: Sequence[np.ndarray]) -> int:
    """Returns the number of distinct rows of the columns; NaN equals NaN."""
    rows = pd.DataFrame(dict(enumerate(columns)))
    return len(rows) - int(rows.duplicated().sum())
