"""Findings: what can be audited, but should be known to whoever reads the report."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pandas as pd

from fairjax.audit._errors import listed, row_count, share
from fairjax.audit.reading._columns import Codes
from fairjax.audit.reading.data import Attribute, AuditData, Finding, Model

# A share of positives beyond these makes most metrics of small groups noise.
_RARE: Final = 0.01
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


def of_levels(name: str, levels: Sequence[str]) -> Iterator[Finding]:
    """Yields what is odd about the names of an attribute's levels."""
    alike: dict[str, list[str]] = {}
    for level in levels:
        alike.setdefault(" ".join(level.split()).casefold(), []).append(level)
    for same in alike.values():
        if len(same) > 1:
            yield Finding(
                "warning",
                "similar_levels",
                f"The levels {listed(same)} of {name} differ only in case or spaces "
                "and were taken as different groups.",
            )
    formulas = [level for level in levels if level.startswith(_FORMULA_STARTS)]
    if formulas:
        yield Finding(
            "info",
            "formula_like_levels",
            f"Levels of {name} start as spreadsheet formulas do: {listed(formulas)}. "
            "They were kept as text.",
        )


def of_quantiles(name: str, asked: int, made: int) -> Iterator[Finding]:
    """Yields that values shared by many rows made fewer levels than were asked for."""
    if made < asked:
        yield Finding(
            "info",
            "fewer_quantiles",
            f"{name} was to be cut into {asked} quantile groups; rows of equal value "
            f"are not parted, which left {made}.",
        )


def of_split(
    validation: tuple[str, str],
    split: Codes,
    chosen_on: np.ndarray,
    keep: np.ndarray,
    patients: np.ndarray | None,
    floor: int,
) -> Iterator[Finding]:
    """Yields what the rows to audit share with those that chose the threshold.

    With `floor`, the smallest count that may be told, no number of a split is.
    """
    column, value = validation
    audited = keep & ~chosen_on
    counts = np.bincount(split.codes[audited] + 1, minlength=len(split.values) + 1)
    others = [*(f"{column} = {name}" for name in split.values), f"no {column}"]
    named = [
        name if floor else f"{name} ({count:,})"
        for name, count in zip(others, np.roll(counts, -1).tolist(), strict=True)
        if count
    ]
    if len(named) > 1:
        yield Finding(
            "warning",
            "several_splits",
            f"All rows but those with {column} = {value} were audited: "
            f"{', '.join(named[:8])}{' and more' if len(named) > 8 else ''}. Rows that "
            "a model was trained on flatter it; leave them out of the table.",
            int(np.count_nonzero(audited)),
        )
    if patients is not None:
        codes, unique = pd.factorize(patients)
        in_both = np.bincount(codes[chosen_on], minlength=len(unique)) > 0
        in_both &= np.bincount(codes[audited], minlength=len(unique)) > 0
        number = int(np.count_nonzero(in_both))
        if number:
            yield Finding(
                "warning",
                "patients_in_both_splits",
                f"{'Some' if floor else f'{number:,}'} patients have rows among those "
                "that the threshold was "
                "chosen on and among those audited. It is then not chosen on other "
                "patients, which flatters every rate at it; leave the patients out of "
                "one of the two.",
                None if floor else int(np.count_nonzero(in_both[codes] & audited)),
            )


def probable_probabilities(name: str) -> Finding:
    """Returns that log-odds look like probabilities."""
    return Finding(
        "warning",
        "logits_in_unit_interval",
        f"{name} was read as log-odds, but every value is in [0, 1]: they may be "
        "probabilities already.",
    )


def of_data(data: AuditData, suppress_below: int) -> Iterator[Finding]:
    """Yields what is notable about the rows to audit.

    With `suppress_below`, no number of rows or patients of a group is told: which of
    them are withheld is not known yet.
    """
    rows = len(data.labels)
    for why, count in data.rows_left_out.items():
        severity = "warning" if why.endswith("missing") else "info"
        message = f"{share(count, data.rows_read)} left out: {why}."
        yield Finding(severity, "rows_left_out", message, count)
    positives = int(np.count_nonzero(data.labels))
    if not _RARE <= positives / rows <= 1 - _RARE:
        yield Finding(
            "warning",
            "extreme_prevalence",
            f"{share(positives, rows)} have the outcome ({positives / rows:.2%}); what "
            "rests on the rarer class is uncertain, most of all in small groups.",
            min(positives, rows - positives),
        )
    for model in data.models:
        yield from _of_model(model)
    baseline, *others = data.models
    for model in others:
        if np.array_equal(model.scores, baseline.scores):
            yield Finding(
                "warning",
                "identical_models",
                f"{model.name} has the score of {baseline.name} in every row.",
                rows,
            )
    for attribute in data.attributes:
        yield from _of_attribute(attribute, data, suppress_below)
    yield from _of_repetition(data)


def _of_model(model: Model) -> Iterator[Finding]:
    scores, rows = model.scores, len(model.scores)
    if model.threshold_source == "default":
        yield Finding(
            "warning",
            "default_threshold",
            f"No threshold was given for {model.name}, so that 0.5 was used: say which "
            "one is used in care, or choose it on validation rows.",
        )
    constant = bool(scores.min() == scores.max())
    if constant:
        yield Finding(
            "warning",
            "constant_score",
            f"{model.name} is {scores[0]:g} in every row; it ranks nobody.",
            rows,
        )
    elif bool(np.all((scores == 0) | (scores == 1))):
        yield Finding(
            "warning",
            "binary_score",
            f"{model.name} is only ever 0 or 1: decisions, not a score. What rests on "
            "ranking or on probabilities says little.",
            rows,
        )
    flagged = int(np.count_nonzero(model.decisions))
    if flagged in (0, rows) and not constant:
        at = "" if model.threshold is None else f" at {model.threshold:.6g}"
        yield Finding(
            "warning",
            "one_sided_decisions",
            f"{model.name} flags {'every row' if flagged else 'no row'}{at}; rates of "
            "decisions say nothing then.",
            rows,
        )


def _of_attribute(
    attribute: Attribute, data: AuditData, floor: int
) -> Iterator[Finding]:
    name, levels = attribute.name, attribute.levels
    counts = np.bincount(attribute.codes, minlength=len(levels))
    # Labels are 0 and 1, so that a weighted count is exact.
    positives = np.bincount(attribute.codes[data.labels > 0], minlength=len(levels))
    if "missing" in levels and counts[levels.index("missing")]:
        count = int(counts[levels.index("missing")])
        yield Finding(
            "info",
            "missing_attribute",
            f"{name} is missing in "
            f"{'some' if floor else f'{count:,}'} of {row_count(len(data.labels))}, "
            "which are a group of their own.",
            None if floor else count,
        )
    if np.count_nonzero(counts) < 2:
        yield Finding(
            "warning",
            "single_group",
            f"{name} is {levels[int(np.argmax(counts))]} in every row, so that it can "
            "show no gap.",
            len(data.labels),
        )
    empty = [level for level, count in zip(levels, counts, strict=True) if not count]
    if empty:
        yield Finding(
            "info",
            "empty_groups",
            f"Groups of {name} without a row: {listed(empty)}.",
            0,
        )
    for wording, lacking in (
        ("with", positives == 0),
        ("without", positives == counts),
    ):
        which = np.flatnonzero(lacking & (counts > 0))
        concerned = int(counts[which].sum())
        if concerned:
            yield Finding(
                "warning",
                "one_class_groups",
                f"Groups of {name} in which no row is {wording} the outcome: "
                f"{'withheld' if floor else listed(levels[i] for i in which)}. Rates "
                "over such rows do not exist there.",
                None if floor else concerned,
            )
    changing = data.varying(attribute)
    if changing.any():
        number = int(np.count_nonzero(changing))
        concerned = int(np.count_nonzero(changing[data.patients]))
        yield Finding(
            "warning",
            "inconsistent_attribute",
            f"{'Some' if floor else f'{number:,}'} of {data.num_patients:,} patients "
            f"have rows with different values of {name}. The search for the worst "
            "intersection, which shuffles whole patients, leaves it out.",
            None if floor else concerned,
        )


def _of_repetition(data: AuditData) -> Iterator[Finding]:
    rows = len(data.labels)
    if data.patients is not None and data.num_patients is not None:
        several = np.bincount(data.patients)
        repeated = int(np.count_nonzero(several > 1))
        if repeated:
            yield Finding(
                "info",
                "several_rows_per_patient",
                f"{repeated:,} of {data.num_patients:,} patients have several rows, at "
                f"most {int(several.max()):,}.",
                int(several[several > 1].sum()),
            )
    predicted = [model.scores for model in data.models]
    rest = [data.labels, *(attribute.codes for attribute in data.attributes)]
    if data.patients is not None:
        rest.append(data.patients)
    # Without an identifier, rows alike are repeated ones only if scores are fine
    # enough that two patients seldom share one.
    elif 2 * _distinct(predicted) < rows:
        return
    repeats = rows - _distinct([*predicted, *rest])
    if repeats:
        whose = " of the same patient" if data.patients is not None else ""
        yield Finding(
            "warning",
            "duplicate_rows",
            f"{share(repeats, rows)} repeat another row{whose} in every column read.",
            repeats,
        )


def _distinct(columns: Sequence[np.ndarray]) -> int:
    """How many different rows the columns have."""
    repeated = pd.DataFrame(dict(enumerate(columns))).duplicated()
    return len(repeated) - int(repeated.sum())
