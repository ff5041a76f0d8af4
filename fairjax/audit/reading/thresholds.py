"""Thresholds of scores: given, or chosen on validation rows.

A decision is positive if ``score >= threshold``. A threshold that is chosen on the
audited rows makes every rate look too good, so `choose_threshold` only gets rows that
the audit leaves out.
"""

import re
from typing import Final

import numpy as np
from jaxtyping import Bool, Float64, Int8

from fairjax.audit._errors import AuditError, row_count

_PLAIN: Final = {
    "youden": "Youden's index",
    "prevalence": "as many selected as have the outcome",
    "f1": "the largest F1 score",
}
_SENSITIVITY = re.compile(r"sensitivity:(\d*\.?\d+)")


def parse_threshold_rule(text: str) -> tuple[str, float | None]:
    """Returns the name of a rule and its sensitivity, or None for other rules.

    Args:
        text: ``"youden"``, ``"prevalence"``, ``"f1"`` or ``"sensitivity:S"``.

    Raises:
        AuditError: If the rule is unknown.

    Example:
        >>> parse_threshold_rule("sensitivity:0.9")
        ('sensitivity', 0.9)
        >>> parse_threshold_rule("youden")
        ('youden', None)
    """
    if text in _PLAIN:
        return text, None
    match = _SENSITIVITY.fullmatch(text)
    if match and 0 < float(match[1]) <= 1:
        return "sensitivity", float(match[1])
    raise AuditError(
        f"--threshold-rule must be youden, prevalence, f1 or sensitivity:S with S "
        f"above 0 and at most 1, such as sensitivity:0.9; got {text!r}"
    )


def describe_threshold_rule(text: str) -> str:
    """Describes a rule in words, for the report.

    Example:
        >>> describe_threshold_rule("sensitivity:0.9")
        'the highest threshold with a sensitivity of at least 0.9'
    """
    name, target = parse_threshold_rule(text)
    if name == "sensitivity":
        return f"the highest threshold with a sensitivity of at least {target:g}"
    return _PLAIN[name]


def choose_threshold(
    rule: str, labels: Int8[np.ndarray, " n"], scores: Float64[np.ndarray, " n"]
) -> float:
    """Chooses a threshold among the scores of validation rows.

    TPR and FPR are the true and false positive rates at a threshold. ``youden``
    maximises TPR − FPR (Youden 1950). ``f1`` maximises 2TP / (2TP + FP + FN).
    ``prevalence`` selects a fraction nearest to the fraction of positives.
    ``sensitivity:S`` is the highest threshold with TPR >= S. Ties go to the highest
    threshold, which selects the fewest rows.

    Args:
        rule: ``"youden"``, ``"prevalence"``, ``"f1"`` or ``"sensitivity:S"``.
        labels: Labels, ``[n]``, 0 or 1.
        scores: Scores, ``[n]``, without NaN.

    Returns:
        The threshold, which is one of the scores.

    Raises:
        AuditError: If the rule is unknown, or a class has no rows.

    Example:
        >>> import numpy as np
        >>> labels = np.array([0, 0, 1, 1, 1], np.int8)
        >>> scores = np.array([0.1, 0.4, 0.35, 0.8, 0.9])
        >>> choose_threshold("youden", labels, scores)
        0.8
        >>> choose_threshold("sensitivity:1", labels, scores)
        0.35
    """
    name, target = parse_threshold_rule(rule)
    positives = int(np.count_nonzero(labels))
    negatives = len(labels) - positives
    if not positives or not negatives:
        raise AuditError(
            "validation rows must include rows with and without the outcome; got "
            f"{positives:,} with and {negatives:,} without in {row_count(len(labels))}"
        )
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    # The last row of each run of equal scores: a threshold selects all of them or none.
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    hits = np.cumsum(labels[order], dtype=np.int64)[ends]
    flagged = ends + 1
    # Uses integers, so that rounding does not break ties.
    if name == "youden":
        best = np.argmax(hits * negatives - (flagged - hits) * positives)
    elif name == "prevalence":
        best = np.argmin(np.abs(flagged - positives))
    elif name == "f1":
        best = np.argmax(2 * hits / (flagged + positives))
    else:
        assert target is not None
        best = np.argmax(hits >= target * positives * (1 - 1e-12))
    return float(ranked[ends[best]])


def decide(
    scores: Float64[np.ndarray, " n"], threshold: float
) -> Bool[np.ndarray, " n"]:
    """Returns the selected rows: rows with a score at or above the threshold.

    Example:
        >>> import numpy as np
        >>> decide(np.array([0.2, 0.5, 0.7]), 0.5).tolist()
        [False, True, True]
    """
    return scores >= threshold
