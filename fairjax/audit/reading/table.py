"""Reading of a table of predictions into compact arrays.

Only the columns in the options are read. Data that cannot be audited raise an error;
unusual data that readers of the report should know become findings.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from fairjax.audit._errors import AuditError, listed, near_miss, row_count, shown
from fairjax.audit.options import Options
from fairjax.audit.reading import _attributes, _labels, _quality, _scores
from fairjax.audit.reading._columns import CodeReader, Codes, KeyReader, NumberReader
from fairjax.audit.reading._sources import Source, open_source
from fairjax.audit.reading.data import AuditData, Finding, Model
from fairjax.audit.reading.thresholds import decide

__all__ = ["AuditData", "Finding", "Model", "read"]


def read(options: Options, table: Any = None) -> AuditData:
    """Reads and checks the table that the options describe.

    Args:
        options: The columns of the table, and how to treat them.
        table: A DataFrame, or a path; ``options.table`` if None.

    Returns:
        The rows to audit.

    Raises:
        AuditError: If the table cannot be audited. The message says what is wrong, in
            which column, and in how many rows.

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
    outcome: Codes = columns["outcome"][options.outcome]
    [patients] = columns["patient"].values() or [None]
    [split] = columns["split"].values() or [None]
    rows = len(outcome.codes)
    if rows < 2:
        raise AuditError(
            f"{source.name!r} has {row_count(rows)}; an audit needs at least 2 rows"
            if rows
            else f"{source.name!r} has no rows"
        )
    missing = {
        name: _missing(column)
        for role in ("outcome", "score", "attribute")
        for name, column in columns[role].items()
    }
    # Columns are freed as soon as they are converted: a table may need most of the
    # memory.
    findings: list[Finding] = []
    labels, positive = _labels.labels(options.outcome, outcome, options.positive)
    keep, left_out = _scores.complete(options, labels, columns["score"])
    scores = [
        _scores.probabilities(name, columns["score"].pop(name), options, findings)
        for name in options.scores
    ]
    decisions = [
        _labels.decisions(name, columns["decision"].pop(name), options.positive, keep)
        for name in options.decisions
    ]
    validation = None
    if options.validation is not None and split is not None:
        validation = _scores.validation_rows(options.validation, split, keep)
        findings += _quality.of_split(
            options.validation,
            split,
            validation,
            keep,
            patients,
            options.suppress_below,
        )
    thresholds = _scores.thresholds(options, labels, scores, validation)
    if validation is not None:
        keep &= ~validation
        left_out["used to choose the threshold"] = int(np.count_nonzero(validation))
    if not keep.any():
        reasons = ", ".join(f"{count:,} {why}" for why, count in left_out.items())
        raise AuditError(f"no row of {rows:,} is left to audit: {reasons}")
    attributes = [
        _attributes.attribute(
            name, columns["attribute"].pop(name), options, keep, findings
        )
        for name in options.attributes
    ]
    _attributes.check_named_levels(options, attributes)
    del columns, outcome, split

    # Avoids copies if no row is left out.
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
    # Warnings first; the order within a severity does not change.
    findings.sort(key=lambda finding: finding.severity != "warning")
    return dataclasses.replace(data, findings=tuple(findings))


def _models(
    options: Options,
    scores: Sequence[np.ndarray],
    decisions: Sequence[np.ndarray],
    thresholds: Sequence[tuple[float | None, str]],
    kept: slice | np.ndarray,
) -> tuple[Model, ...]:
    def model(i: int) -> Model:
        threshold, origin = thresholds[i]
        values = scores[i][kept]
        # A model without a threshold has decisions.
        chosen = decisions[i][kept] if threshold is None else decide(values, threshold)
        column = options.scores[i]
        return Model(options.names[i], column, values, threshold, origin, chosen)

    return tuple(map(model, range(len(thresholds))))


def _read_columns(options: Options, source: Source) -> dict[str, dict[str, Any]]:
    """Reads the columns of the options in one pass: role -> name -> all rows."""
    decimal, two = options.decimal, "; it must have two values"

    def codes(role: str, name: str, hint: str = two) -> CodeReader:
        return CodeReader(f"{role} {name!r}", hint, decimal)

    def numbers(role: str, name: str) -> NumberReader:
        return NumberReader(f"{role} {name!r}", decimal)

    readers: dict[str, dict[str, Any]] = {
        "outcome": {options.outcome: codes("outcome", options.outcome)},
        "score": {name: numbers("score", name) for name in options.scores},
        "decision": {name: codes("decision", name) for name in options.decisions},
        "attribute": {
            name: numbers("attribute", name)
            if name in options.bins
            else codes("attribute", name, _attributes.too_many(name))
            for name in options.attributes
        },
        "patient": {},
        "split": {},
    }
    if (name := options.patient_id) is not None:
        readers["patient"][name] = KeyReader(f"patient id {name!r}")
    if options.validation is not None:
        column = options.validation[0]
        readers["split"][column] = codes("validation", column, "")
    named = [one for of in readers.values() for one in of.items()]
    _check_columns([name for name, _ in named], source)
    for batch in source.batches(list(dict.fromkeys(name for name, _ in named))):
        for name, reader in named:
            reader.add(batch[name])
    found = {
        role: {name: reader.finish() for name, reader in of.items()}
        for role, of in readers.items()
    }
    found["attribute"] = {
        name: _in_declared_order(column, source.categories.get(name))
        for name, column in found["attribute"].items()
    }
    return found


def _missing(column: np.ndarray | Codes) -> int:
    gone = column.codes < 0 if isinstance(column, Codes) else np.isnan(column)
    return int(np.count_nonzero(gone))


def _check_columns(names: Sequence[str], source: Source) -> None:
    for name in names:
        times = list(source.columns).count(name)
        if times > 1:
            raise AuditError(
                f"{source.name!r} ({_size(source)}) has {times} columns named "
                f"{name!r}; the name must be unique"
            )
        if times:
            continue
        if len(source.columns) == 1:
            guess = [mark for mark in ";\t|," if mark in source.columns[0]]
            if guess:
                mark = "tab" if guess[0] == "\t" else repr(guess[0])
                raise AuditError(
                    f"{source.name!r} has the single column {shown(source.columns[0])};"
                    f" if {mark} separates its fields, add --separator {mark}"
                )
        hint = near_miss(name, source.columns)
        if not hint and source.columns:
            hint = f"; its columns are {listed(source.columns)}"
        raise AuditError(
            f"{source.name!r} ({_size(source)}) has no column {name!r}{hint}"
        )


def _size(source: Source) -> str:
    """Returns the numbers of rows and columns, for a message."""
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
    """Returns codes in the order of a categorical type, with all its categories."""
    if declared is None or not isinstance(column, Codes):
        return column
    order = tuple(dict.fromkeys((*declared, *column.values)))
    index = np.array([*(order.index(value) for value in column.values), -1], np.int32)
    return Codes(index[column.codes], order, column.numeric)


def _check_classes(data: AuditData) -> None:
    rows = len(data.labels)
    positives = int(np.count_nonzero(data.labels))
    if positives in (0, rows):
        side = "is" if positives else "is not"
        raise AuditError(
            f"outcome {data.outcome!r} {side} {data.positive!r} in all "
            f"{row_count(rows)} to audit; rows with and without the outcome are needed"
        )
