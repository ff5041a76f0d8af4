"""Conversion of scores to probabilities and decisions, and rows with values."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from fairjax.audit._errors import AuditError, listed, near_miss, where
from fairjax.audit.options import Options
from fairjax.audit.reading import _quality
from fairjax.audit.reading._columns import Codes
from fairjax.audit.reading.data import Finding
from fairjax.audit.reading.thresholds import choose_threshold, describe_threshold_rule

DEFAULT_THRESHOLD: Final = 0.5


def complete(
    options: Options, labels: np.ndarray, scores: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, int]]:
    """Returns the rows with an outcome and all scores, and counts the others.

    Args:
        options: The options of the audit.
        labels: Labels, [n], -1 if missing.
        scores: Column -> scores, [n], NaN if missing.

    Returns:
        The rows to keep, bool [n]; and reason -> number of rows left out. A row with
        several reasons counts once.

    Raises:
        AuditError: If a value is missing and the options refuse missing values.
    """
    keep = np.ones(len(labels), bool)
    left_out: dict[str, int] = {}
    drop = {"outcome": options.missing_outcomes, "score": options.missing_scores}
    lacking = [("outcome", options.outcome, labels < 0)]
    lacking += [("score", name, np.isnan(values)) for name, values in scores.items()]
    for role, name, missing in lacking:
        what, option = f"{role} {name!r}", f"--missing-{role}s"
        if not missing.any():
            continue
        if drop[role] == "refuse":
            raise AuditError(
                f"{what} is missing in {where(missing)}; {option} drop leaves out such "
                "rows"
            )
        left_out[f"{what} missing"] = int(np.count_nonzero(missing & keep))
        keep &= ~missing
    return keep, left_out


def probabilities(
    name: str, values: np.ndarray, options: Options, findings: list[Finding]
) -> np.ndarray:
    """Returns scores in [0, 1], NaN if missing.

    Raises:
        AuditError: If a score is infinite, or outside [0, 1] without ``logits``.
    """
    what = f"score {name!r}"
    infinite = np.isinf(values)
    if infinite.any():
        raise AuditError(f"{what} is infinite in {where(infinite)}")
    outside = (values < 0) | (values > 1)
    if options.logits:
        if not outside.any():
            findings.append(_quality.finding("logits_in_unit_interval", name=name))
        # The exponential of a large number would overflow.
        small = np.exp(-np.abs(values))
        return np.where(values >= 0, 1.0, small) / (1.0 + small)
    if outside.any():
        raise AuditError(
            f"{what} must be in [0, 1]; got values outside in {where(outside)}: "
            f"{values[np.argmax(outside)]:g}; {_scale_hint(values)}"
        )
    return values


def _scale_hint(values: np.ndarray) -> str:
    low, high = np.nanmin(values), np.nanmax(values)
    if low >= 0 and 1 < high <= 100:
        return f"the largest score is {high:g}: divide percentages by 100"
    return "if the scores are log-odds, add --logits"


def validation_rows(
    validation: tuple[str, str], split: Codes, keep: np.ndarray
) -> np.ndarray:
    """Returns the rows that choose the threshold, bool [n].

    Raises:
        AuditError: If the column has no such value.
    """
    column, value = validation
    if value not in split.values:
        raise AuditError(
            f"--validation: no row has {value!r} in column {column!r}"
            f"{near_miss(value, split.values)}; {column!r} has {listed(split.values)}"
        )
    return (split.codes == split.values.index(value)) & keep


def thresholds(
    options: Options,
    labels: np.ndarray,
    scores: Sequence[np.ndarray],
    validation: np.ndarray | None,
) -> list[tuple[float | None, str]]:
    """Returns the threshold of each model, None for decisions, and its origin.

    Raises:
        AuditError: If the validation rows have only one class.
    """
    if options.decisions:
        return [(None, f"decisions of column {name!r}") for name in options.decisions]
    if validation is not None and options.threshold_rule and options.validation:
        chosen_on = labels[validation]
        column, value = options.validation
        origin = (
            f"{describe_threshold_rule(options.threshold_rule)}, on "
            f"{len(chosen_on):,} validation rows ({column} = {value})"
        )
        return [
            (
                choose_threshold(options.threshold_rule, chosen_on, of[validation]),
                origin,
            )
            for of in scores
        ]
    if not options.cuts:
        return [(DEFAULT_THRESHOLD, "default")] * len(scores)
    # A single threshold applies to all models.
    given = options.cuts * (len(scores) // len(options.cuts))
    return [(threshold, "given") for threshold in given]
