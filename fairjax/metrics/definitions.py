"""The table of metrics: the name of each metric, its formula and its gaps.

A metric of decisions or of scores is one row of `METRICS`. The functions of rates and
gaps, the tables by group, and an audit's measures, rules and glossary read that row.
"""

import re
from typing import Literal, NamedTuple, TypeAlias

Cells: TypeAlias = tuple[str, ...]
Kind: TypeAlias = Literal["difference", "ratio"]

# Indices in a group's table: [label, prediction].
CELLS = {"TP": (1, 1), "FP": (0, 1), "TN": (0, 0), "FN": (1, 0)}
ODDS = ("true_positive_rate", "false_positive_rate")
"""The rates that equalized odds compares."""
_FRACTION = re.compile(r"\(?([A-Z +]+?)\)? / (n|\([A-Z +]+\))")
_BOTH = ("fairlearn", "aif360")


class Metric(NamedTuple):
    """A metric of one group.

    Attributes:
      title: Name in headings and sentences.
      short: Name in the headers of tables and panels.
      words: Explanation of the computation, one or more sentences.
      formula: Formula in the cells of the group's table; empty for a metric of scores.
      example: Values of the two groups of `docstring`, worked by hand.
      perfect: Value of a perfect model; None if there is no such value.
      bounded: Whether values lie between 0 and 1.
      gaps: Names of the gaps between groups, which end in the kind of gap.
      gap_title: Name of the gaps in headings, if not made from the gap's own name.
      gap_short: Name of the gaps in the headers of tables, if it is not ``short``.
      toolkits: Toolkits that have the rate: ``"fairlearn"``, ``"aif360"``.
      interval: Whether an audit gives an interval, so that a rule may name the metric.
      audited: Whether an audit reports the metric for every group.
    """

    title: str
    short: str
    words: str
    formula: str = ""
    example: tuple[float, float] = (0, 0)
    perfect: float | None = None
    bounded: bool = True
    gaps: tuple[str, ...] = ()
    gap_title: str = ""
    gap_short: str = ""
    toolkits: tuple[str, ...] = ()
    interval: bool = True
    audited: bool = True

    @property
    def cells(self) -> tuple[Cells, Cells] | None:
        """Cells of the numerator, and cells only in the denominator, of a fraction."""
        match = _FRACTION.fullmatch(self.formula)
        if not match:
            return None
        hits = tuple(match[1].split(" + "))
        base = CELLS if match[2] == "n" else match[2].strip("()").split(" + ")
        return hits, tuple(cell for cell in base if cell not in hits)

    @property
    def higher_is_better(self) -> bool | None:
        """Direction of the metric; None if neither end of the range is better."""
        if self.perfect is None or not self.bounded:
            return None
        return self.perfect == 1

    @property
    def phrase(self) -> str:
        """Title within a sentence, without the words in parentheses."""
        return (self.title[0].lower() + self.title[1:]).partition(" (")[0]


METRICS = {
    "auroc": Metric(
        "Area under the ROC curve",
        "AUROC",
        "The probability that a random patient with the outcome has a higher score "
        "than a random patient without it; ties count half. Random scores have 0.5.",
        perfect=1.0,
        gaps=("auroc_difference",),
        gap_title="AUROC",
    ),
    "auprc": Metric(
        "Area under the precision-recall curve",
        "AUPRC",
        "Precision averaged over the positives as the threshold falls. Random scores "
        "have the group's prevalence, so compare only groups of equal prevalence.",
        perfect=1.0,
    ),
    "brier_score": Metric(
        "Brier score",
        "Brier",
        "The mean squared difference between score and outcome; lower is better. The "
        "score depends on prevalence.",
        perfect=0.0,
    ),
    "expected_calibration_error": Metric(
        "Expected calibration error",
        "ECE",
        "The absolute difference between mean score and observed fraction with the "
        "outcome, in bins of the score, averaged over bins weighted by rows. Noise "
        "alone makes the error positive, more so in small groups.",
        perfect=0.0,
        interval=False,
    ),
    "calibration_intercept": Metric(
        "Calibration in the large",
        "Intercept",
        "The shift of log odds that makes the mean prediction equal the observed "
        "fraction. 0 is perfect; above 0 the scores are too low.",
        perfect=0.0,
        bounded=False,
        gaps=("calibration_intercept_difference",),
        gap_title="Calibration-in-the-large",
    ),
    "calibration_slope": Metric(
        "Calibration slope",
        "Slope",
        "The slope of the outcome's log odds on the score's log odds. 1 is perfect; "
        "below 1 the scores are too extreme.",
        perfect=1.0,
        bounded=False,
        gaps=("calibration_slope_difference",),
    ),
    "selection_rate": Metric(
        "Selection rate",
        "Selected",
        "The fraction of all rows that the model selects (score at or above the "
        "threshold).",
        "(TP + FP) / n",
        (0.5, 0.2),
        gaps=("demographic_parity_difference", "demographic_parity_ratio"),
        gap_short="Parity",
        toolkits=_BOTH,
    ),
    "prevalence": Metric(
        "Prevalence",
        "Prevalence",
        "The fraction of all rows with the outcome.",
        "(TP + FN) / n",
        (0.2, 0.5),
        toolkits=("aif360",),
        audited=False,
    ),
    "true_positive_rate": Metric(
        "True positive rate (sensitivity)",
        "TPR",
        "The fraction of patients with the outcome that the model selects.",
        "TP / (TP + FN)",
        (0.75, 0.2),
        perfect=1.0,
        gaps=("equal_opportunity_difference", "equal_opportunity_ratio"),
        toolkits=_BOTH,
    ),
    "false_positive_rate": Metric(
        "False positive rate",
        "FPR",
        "The fraction of patients without the outcome that the model selects.",
        "FP / (FP + TN)",
        (0.4375, 0.2),
        perfect=0.0,
        gaps=("false_positive_rate_difference", "false_positive_rate_ratio"),
        toolkits=_BOTH,
    ),
    "true_negative_rate": Metric(
        "True negative rate (specificity)",
        "TNR",
        "The fraction of patients without the outcome that the model does not select.",
        "TN / (TN + FP)",
        (0.5625, 0.8),
        perfect=1.0,
        toolkits=_BOTH,
    ),
    "false_negative_rate": Metric(
        "False negative rate",
        "FNR",
        "The fraction of patients with the outcome that the model misses.",
        "FN / (FN + TP)",
        (0.25, 0.8),
        perfect=0.0,
        gaps=("false_negative_rate_difference", "false_negative_rate_ratio"),
        toolkits=_BOTH,
    ),
    "positive_predictive_value": Metric(
        "Positive predictive value (precision)",
        "PPV",
        "The fraction of selected patients who have the outcome. The value rises with "
        "prevalence.",
        "TP / (TP + FP)",
        (0.3, 0.5),
        perfect=1.0,
        gaps=("predictive_parity_difference",),
        toolkits=_BOTH,
    ),
    "negative_predictive_value": Metric(
        "Negative predictive value",
        "NPV",
        "The fraction of patients not selected who do not have the outcome. The value "
        "falls with prevalence.",
        "TN / (TN + FN)",
        (0.9, 0.5),
        perfect=1.0,
        gaps=("negative_predictive_value_difference",),
        gap_title="NPV",
        toolkits=("aif360",),
    ),
    "accuracy": Metric(
        "Accuracy",
        "Accuracy",
        "The fraction of rows with a correct decision.",
        "(TP + TN) / n",
        (0.6, 0.5),
        perfect=1.0,
        gaps=("accuracy_difference",),
        toolkits=_BOTH,
    ),
    "error_rate": Metric(
        "Error rate",
        "Error",
        "The fraction of rows with a wrong decision.",
        "(FP + FN) / n",
        (0.4, 0.5),
        perfect=0.0,
        gaps=("error_rate_difference", "error_rate_ratio"),
        toolkits=_BOTH,
    ),
    "balanced_accuracy": Metric(
        "Balanced accuracy",
        "Bal. accuracy",
        "The mean of the true positive and the true negative rate.",
        "(TPR + TNR) / 2",
        perfect=1.0,
        toolkits=("fairlearn",),
    ),
    "f1_score": Metric(
        "F1 score",
        "F1",
        "The harmonic mean of positive predictive value and true positive rate.",
        "2 TP / (2 TP + FP + FN)",
        perfect=1.0,
        toolkits=("fairlearn",),
    ),
    "treatment_ratio": Metric(
        "Treatment ratio",
        "FN / FP",
        "The number of false negatives for each false positive.",
        "FN / FP",
        (1 / 7, 4.0),
        bounded=False,
        gaps=("treatment_equality_difference",),
        audited=False,
    ),
}
"""Metrics of one group, by name: metrics of scores, then metrics of decisions."""
SCORES = tuple(name for name, metric in METRICS.items() if not metric.formula)
"""Names of the metrics of scores."""
RATES = tuple(name for name, metric in METRICS.items() if metric.formula)
"""Names of the metrics of decisions, which are all rates."""
COMPLEMENTS = {
    name: other
    for position, name in enumerate(RATES)
    for other in RATES[:position]
    if (cells := METRICS[name].cells) and (others := METRICS[other].cells)
    if tuple(map(set, cells)) == tuple(map(set, reversed(others)))
}
"""Rates that are 1 minus an earlier rate, each with the earlier rate."""


class Gap(NamedTuple):
    """A gap between groups: the metrics that it compares, and its names.

    Attributes:
      kind: ``"difference"`` or ``"ratio"``.
      rates: Name of one metric, or names of the two rates of equalized odds.
      joined: Combination of the gaps of two rates: ``"worst"``, ``"mean"``, or the
        ``"signed"`` mean.
      title: Name in headings and sentences.
      short: Name in the headers of tables and panels.
      words: Explanation of the computation.
    """

    kind: Kind
    rates: tuple[str, ...]
    joined: str = ""
    title: str = ""
    short: str = ""
    words: str = ""


_WORDS: dict[Kind, tuple[str, str]] = {
    "difference": (
        "gap",
        "The highest {} minus the lowest, of the groups compared.",
    ),
    "ratio": ("ratio", "The lowest {} divided by the highest, of the groups compared."),
}


def _gap(metric: str, name: str, kind: Kind) -> Gap:
    row = METRICS[metric]
    stem = name.removesuffix(f"_{kind}").replace("_", "-").capitalize()
    short, words = _WORDS[kind]
    # The area under the curve is better known by its abbreviation.
    of = row.short if metric == "auroc" else row.phrase
    return Gap(
        kind,
        (metric,),
        title=f"{row.gap_title or stem} {kind}",
        short=f"{row.gap_short or row.short} {short}",
        words=words.format(of),
    )


GAPS = {
    gap: _gap(name, gap, kind)
    for name in (*RATES, *SCORES)
    for gap in METRICS[name].gaps
    for kind in _WORDS
    if gap.endswith(kind)
}
"""Gaps between groups, by name."""
GAPS |= {
    "equalized_odds_difference": Gap(
        "difference",
        ODDS,
        "worst",
        "Equalized-odds difference",
        "Equalized odds",
        "The larger of two gaps over groups: in the true positive rate and in the "
        "false positive rate.",
    ),
    "equalized_odds_difference_mean": Gap("difference", ODDS, "mean"),
    "equalized_odds_ratio": Gap("ratio", ODDS, "worst"),
    "equalized_odds_ratio_mean": Gap("ratio", ODDS, "mean"),
}
SIGNED = {
    "statistical_parity_difference": GAPS["demographic_parity_difference"],
    "disparate_impact": GAPS["demographic_parity_ratio"],
    "average_odds_difference": Gap("difference", ODDS, "signed"),
    "average_absolute_odds_difference": GAPS["equalized_odds_difference_mean"],
}
"""Gaps that need a reference group."""
AUDITED = (
    "equalized_odds_difference",
    "demographic_parity_ratio",
    *(
        name
        for name, gap in GAPS.items()
        if (gap.kind, gap.joined) == ("difference", "")
        # A rate and its complement have the same gap.
        and METRICS[gap.rates[0]].audited
        and gap.rates[0] not in COMPLEMENTS
    ),
)
"""Names of the gaps that an audit estimates and tests."""


def docstring(first: str, note: str, call: str, value: object) -> str:
    """Writes the docstring of a function of two groups' counts.

    Args:
      first: First line of the docstring.
      note: Text after the first line; may be empty.
      call: An expression of ``counts``.
      value: Value of the expression.

    Example:
      >>> text = docstring("Counts.", "", "counts.counts.sum().item()", 40)
      >>> text.splitlines()[-1].strip()
      '40'
    """
    middle = f"\n{note}\n" if note else ""
    return f"""{first}
{middle}
Example:
  >>> import jax.numpy as jnp
  >>> counts = GroupCounts(jnp.array([[[9, 7], [1, 3]], [[8, 2], [8, 2]]]))
  >>> {call}
  {value}
"""
