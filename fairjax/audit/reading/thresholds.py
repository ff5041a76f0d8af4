"""Where a score becomes a decision: a threshold given, or chosen on validation rows.

A decision is positive where ``score >= threshold``. A threshold that is chosen on the
rows it is then judged on makes every rate look better than it will be, so that
`choose_threshold` is only ever given rows that the audit leaves out.
"""

import re
from typing import Final

import numpy as np
from jaxtyping import Bool, Float64, Int8

from fairjax.audit._errors import AuditError, row_count

_PLAIN: Final = {
    "youden": "Youden's index",
    "prevalence": "as many flagged as have the outcome",
    "f1": "the largest F1 score",
}
_SENSITIVITY = re.compile(r"sensitivity:(\d*\.?\d+)")


def parse_threshold_rule(text: str) -> tuple[str, float | None]:
    """The name of a rule and, for a sensitivity, how large it must be.

    Raises:
        AuditError: If there is no such rule.

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
        f"above 0 and at most 1, such as sensitivity:0.9, not {text!r}"
    )


def describe_threshold_rule(text: str) -> str:
    """A rule in plain words, for the report.

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
    """The threshold that a rule picks among the scores of validation rows.

    With the true and false positive rates TPR and FPR at a threshold: ``youden`` has
    the largest TPR − FPR (Youden 1950), ``f1`` the largest 2TP / (2TP + FP + FN),
    ``prevalence`` a share flagged nearest to the share of positives, and
    ``sensitivity:S`` is the highest with TPR >= S. Of equally good thresholds the
    highest is taken, which flags fewest.

    Args:
        rule: One of the above.
        labels: ``[n]``, 0 or 1.
        scores: ``[n]``, without NaN.

    Returns:
        One of the scores.

    Raises:
        AuditError: If the rule is unknown, or a class has no row.

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
            f"a threshold cannot be chosen on {row_count(len(labels))} of validation: "
            f"{positives:,} have the outcome and {negatives:,} do not; both are needed"
        )
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    # The last row of each run of equal scores: a threshold takes all of them or none.
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    hits = np.cumsum(labels[order], dtype=np.int64)[ends]
    flagged = ends + 1
    # All in whole numbers, so that ties are ties and not a matter of rounding.
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
    """Which rows are flagged: those with a score at the threshold or above.

    Example:
        >>> import numpy as np
        >>> decide(np.array([0.2, 0.5, 0.7]), 0.5).tolist()
        [False, True, True]
    """
    return scores >= threshold
