"""A table of predictions to compact arrays, or to one message of what is wrong.

Only the columns that the options name are read. What cannot be audited is refused;
what can, but should be known to whoever reads the report, becomes a finding.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fairjax.audit._errors import AuditError, listed, near_miss, row_count, shown
from fairjax.audit.options import Options
from fairjax.audit.reading import _attributes, _labels, _quality, _scores
from fairjax.audit.reading._columns import CodeReader, Codes, KeyReader, NumberReader
from fairjax.audit.reading._sources import Source, open_source
from fairjax.audit.reading.data import Attribute, AuditData, Finding, Model
from fairjax.audit.reading.thresholds import decide

__all__ = ["Attribute", "AuditData", "Finding", "Model", "read"]


class _Columns(NamedTuple):
    """What was read, all rows of it."""

    outcome: Codes
    scores: dict[str, np.ndarray]
    decisions: dict[str, Codes]
    attributes: dict[str, np.ndarray | Codes]
    patients: np.ndarray | None
    split: Codes | None


def read(options: Options, table: Any = None) -> AuditData:
    """Reads the table that the options describe, and checks it.

    Args:
        options: What is in which column, and what to do about it.
        table: A DataFrame, or a path; ``options.table`` if None.

    Returns:
        The rows to audit.

    Raises:
        AuditError: If the table cannot be audited: what is wrong, in which column, and
            in how many rows of how many.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({
        ...     "died": [0, 1, 0, 1], "risk": [0.1, 0.7, 0.6, 0.4],
        ...     "sex": ["F", "F", "M", None]})
        >>> options = Options(outcome="died", scores="risk", attributes="sex")
        >>> data = read(options, frame)
        >>> data.attributes[0].levels, data.attributes[0].codes.tolist()
        (('F', 'M', 'missing'), [0, 0, 1, 2])
        >>> data.models[0].decisions.tolist()
        [False, True, True, False]
    """
    table = options.table if table is None else table
    if table is None:
        raise AuditError("no table: name a CSV or Parquet file, or pass a DataFrame")
    source = open_source(table, options.separator)
    columns = _read_columns(options, source)
    rows = len(columns.outcome.codes)
    if rows < 2:
        raise AuditError(
            f"{source.name!r} has {row_count(rows)}; an audit compares groups of them"
            if rows
            else f"{source.name!r} has no rows"
        )
    missing = {options.outcome: _missing(columns.outcome)}
    for read_columns in (columns.scores, columns.attributes):
        missing |= {name: _missing(column) for name, column in read_columns.items()}
    # What was read is let go as soon as it is turned into what is kept: a table may
    # take most of the memory.
    findings: list[Finding] = []
    labels, positive = _labels.labels(
        options.outcome, columns.outcome, options.positive
    )
    keep, left_out = _scores.complete(options, labels, columns.scores)
    scores = [
        _scores.probabilities(name, columns.scores.pop(name), options, findings)
        for name in options.scores
    ]
    decisions = [
        _labels.decisions(name, columns.decisions.pop(name), options.positive, keep)
        for name in options.decisions
    ]
    validation = None
    if options.validation is not None and columns.split is not None:
        validation = _scores.validation_rows(options.validation, columns.split, keep)
        findings += _quality.of_split(
            options.validation,
            columns.split,
            validation,
            keep,
            columns.patients,
            options.suppress_below,
        )
    thresholds = _scores.thresholds(options, labels, scores, validation)
    if validation is not None:
        keep &= ~validation
        left_out["used to choose the threshold"] = int(np.count_nonzero(validation))
    if not keep.any():
        reasons = ", ".join(f"{count:,} {why}" for why, count in left_out.items())
        raise AuditError(f"no row is left of {rows:,}: {reasons}")
    attributes = [
        _attributes.attribute(
            name, columns.attributes.pop(name), options, keep, findings
        )
        for name in options.attributes
    ]
    _attributes.check_named_levels(options, attributes)
    patients = columns.patients
    del columns

    # Nothing is copied where no row is left out.
    kept = slice(None) if keep.all() else keep
    num_patients = None
    if patients is not None:
        codes, unique = pd.factorize(patients[kept])
        patients, num_patients = codes.astype(np.int32), len(unique)
        del codes, unique
    data = AuditData(
        source=source.name,
        sha256=source.sha256,
        rows_read=rows,
        rows_left_out={why: count for why, count in left_out.items() if count},
        missing=missing,
        outcome=options.outcome,
        positive=positive,
        labels=labels[kept],
        models=_models(options, scores, decisions, thresholds, kept),
        attributes=tuple(
            dataclasses.replace(attribute, codes=attribute.codes[kept])
            for attribute in attributes
        ),
        patients=patients,
        num_patients=num_patients,
        findings=(),
    )
    _check_classes(data)
    findings += _quality.of_data(data, options.suppress_below)
    # Warnings first, otherwise in the order in which they were found.
    findings.sort(key=lambda finding: finding.severity != "warning")
    return dataclasses.replace(data, findings=tuple(findings))


def _models(
    options: Options,
    scores: Sequence[np.ndarray],
    decisions: Sequence[np.ndarray],
    thresholds: Sequence[tuple[float | None, str]],
    kept: slice | np.ndarray,
) -> tuple[Model, ...]:
    models = []
    for i, (threshold, origin) in enumerate(thresholds):
        values = scores[i][kept]
        flagged = decide(values, threshold) if threshold is not None else None
        models.append(
            Model(
                name=options.names[i],
                column=options.scores[i],
                scores=values,
                threshold=threshold,
                threshold_source=origin,
                decisions=decisions[i][kept] if flagged is None else flagged,
            )
        )
    return tuple(models)


def _read_columns(options: Options, source: Source) -> _Columns:
    """Reads the columns that are named, all at once."""
    decimal = options.decimal
    two = "; it must have two"
    outcome = CodeReader(f"outcome {options.outcome!r}", two, decimal)
    scores = {name: NumberReader(f"score {name!r}", decimal) for name in options.scores}
    decisions = {
        name: CodeReader(f"decision {name!r}", two, decimal)
        for name in options.decisions
    }
    attributes = {
        name: NumberReader(f"attribute {name!r}", decimal)
        if name in options.bins
        else CodeReader(f"attribute {name!r}", _attributes.too_many(name), decimal)
        for name in options.attributes
    }
    readers: list[tuple[str, Any]] = [
        (options.outcome, outcome),
        *scores.items(),
        *decisions.items(),
        *attributes.items(),
    ]
    patients = split = None
    if options.patient_id is not None:
        patients = KeyReader(f"patient id {options.patient_id!r}")
        readers.append((options.patient_id, patients))
    if options.validation is not None:
        column = options.validation[0]
        split = CodeReader(f"validation {column!r}", "", decimal)
        readers.append((column, split))
    _check_columns([name for name, _ in readers], source)
    for batch in source.batches(list(dict.fromkeys(name for name, _ in readers))):
        for name, reader in readers:
            reader.add(batch[name])
    return _Columns(
        outcome.finish(),
        {name: reader.finish() for name, reader in scores.items()},
        {name: reader.finish() for name, reader in decisions.items()},
        {
            name: _in_declared_order(reader.finish(), source.categories.get(name))
            for name, reader in attributes.items()
        },
        None if patients is None else patients.finish(),
        None if split is None else split.finish(),
    )


def _missing(column: np.ndarray | Codes) -> int:
    gone = column.codes < 0 if isinstance(column, Codes) else np.isnan(column)
    return int(np.count_nonzero(gone))


def _check_columns(names: Sequence[str], source: Source) -> None:
    for name in names:
        times = list(source.columns).count(name)
        if times > 1:
            raise AuditError(
                f"{source.name!r} ({_size(source)}) has {times} columns named "
                f"{name!r}; which is meant cannot be told"
            )
        if times:
            continue
        if len(source.columns) == 1:
            guess = [mark for mark in ";\t|," if mark in source.columns[0]]
            if guess:
                mark = "tab" if guess[0] == "\t" else repr(guess[0])
                raise AuditError(
                    f"{source.name!r} has the single column {shown(source.columns[0])};"
                    f" are its fields separated by {mark}? Then add --separator {mark}"
                )
        hint = near_miss(name, source.columns)
        if not hint and source.columns:
            hint = f": it has {listed(source.columns)}"
        raise AuditError(
            f"{source.name!r} ({_size(source)}) has no column {name!r}{hint}"
        )


def _size(source: Source) -> str:
    """Rows and columns, for a message; the rows are counted for it."""
    columns = len(source.columns)
    words = f"{columns:,} {'column' if columns == 1 else 'columns'}"
    if len(set(source.columns)) < columns or not columns:
        return words
    first = source.columns[0]
    rows = sum(len(batch[first]) for batch in source.batches([first]))
    return f"{row_count(rows)}, {words}"


def _in_declared_order(
    column: np.ndarray | Codes, declared: Sequence[str] | None
) -> np.ndarray | Codes:
    """The codes in the order of a categorical type, whose every level is kept."""
    if declared is None or not isinstance(column, Codes):
        return column
    order = tuple(dict.fromkeys((*declared, *column.values)))
    place = np.array([*(order.index(value) for value in column.values), -1], np.int32)
    return Codes(place[column.codes], order, column.numeric)


def _check_classes(data: AuditData) -> None:
    rows = len(data.labels)
    positives = int(np.count_nonzero(data.labels))
    if positives in (0, rows):
        side = "is" if positives else "is not"
        raise AuditError(
            f"outcome {data.outcome!r} {side} {data.positive!r} in all "
            f"{row_count(rows)} to audit; rows with and without the outcome are needed"
        )
