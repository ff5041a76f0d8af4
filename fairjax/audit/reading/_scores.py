"""Scores to probabilities and decisions, and the rows that have what it takes."""

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
    """Returns which rows have an outcome and all scores, and why how many have not.

    A row that lacks several is counted once.

    Raises:
        AuditError: If a row lacks what the options refuse to miss.
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
                f"{what} is missing in {where(missing)}; {option} drop leaves such "
                "rows out"
            )
        left_out[f"{what} missing"] = int(np.count_nonzero(missing & keep))
        keep &= ~missing
    return keep, left_out


def probabilities(
    name: str, values: np.ndarray, options: Options, findings: list[Finding]
) -> np.ndarray:
    """Returns scores in [0, 1], NaN where missing.

    Raises:
        AuditError: If a score is infinite, or outside [0, 1] and not log-odds.
    """
    what = f"score {name!r}"
    infinite = np.isinf(values)
    if infinite.any():
        raise AuditError(f"{what} is infinite in {where(infinite)}")
    outside = (values < 0) | (values > 1)
    if options.logits:
        if not outside.any():
            findings.append(_quality.finding("logits_in_unit_interval", name=name))
        # Never an exponential of a large number.
        small = np.exp(-np.abs(values))
        return np.where(values >= 0, 1.0, small) / (1.0 + small)
    if outside.any():
        raise AuditError(
            f"{what} is outside [0, 1] in {where(outside)}: "
            f"{values[np.argmax(outside)]:g}; {_scale_hint(values)}"
        )
    return values


def _scale_hint(values: np.ndarray) -> str:
    low, high = np.nanmin(values), np.nanmax(values)
    if low >= 0 and 1 < high <= 100:
        return f"it reaches {high:g}: percentages must be divided by 100"
    return "if these are log-odds, say so with --logits"


def validation_rows(
    validation: tuple[str, str], split: Codes, keep: np.ndarray
) -> np.ndarray:
    """Returns which rows the threshold is chosen on, bool [n].

    Raises:
        AuditError: If the column has no such value.
    """
    column, value = validation
    if value not in split.values:
        raise AuditError(
            f"--validation: no row has {value!r} in column {column!r}"
            f"{near_miss(value, split.values)}; it has {listed(split.values)}"
        )
    return (split.codes == split.values.index(value)) & keep


def thresholds(
    options: Options,
    labels: np.ndarray,
    scores: Sequence[np.ndarray],
    validation: np.ndarray | None,
) -> list[tuple[float | None, str]]:
    """Returns each model's threshold, None for decisions, and where it comes from.

    Raises:
        AuditError: If the validation rows lack a class.
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
    # One threshold serves all models.
    given = options.cuts * (len(scores) // len(options.cuts))
    return [(threshold, "given") for threshold in given]
