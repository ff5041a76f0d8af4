"""What each metric of an audit is called, and how it is computed, in words."""

from typing import NamedTuple

_SPREAD = "The highest group's minus the lowest group's {}, over the groups compared."


# Of the score itself, whatever the threshold.
RANKING = (
    "auroc",
    "auprc",
    "brier_score",
    "calibration_intercept",
    "calibration_slope",
    "expected_calibration_error",
)


class Metric(NamedTuple):
    """How the report names and explains a metric.

    Attributes:
      title: In headings and sentences.
      short: In the headers of tables and panels.
      formula: In words.
      perfect: The value of a flawless model, where there is one.
      bounded: Whether values lie between 0 and 1.
    """

    title: str
    short: str
    formula: str
    perfect: float | None = None
    bounded: bool = True


METRICS: dict[str, Metric] = {
    "auroc": Metric(
        "Area under the ROC curve",
        "AUROC",
        "The chance that a random patient with the outcome has a higher score than a "
        "random patient without it; ties count one half. 0.5 is a coin's.",
        1.0,
    ),
    "auprc": Metric(
        "Area under the precision-recall curve",
        "AUPRC",
        "Precision averaged over the positives as the threshold falls. Its floor is "
        "the group's prevalence, so groups of different prevalence do not compare.",
        1.0,
    ),
    "brier_score": Metric(
        "Brier score",
        "Brier",
        "The mean squared difference between score and outcome; lower is better. It "
        "depends on prevalence.",
        0.0,
    ),
    "expected_calibration_error": Metric(
        "Expected calibration error",
        "ECE",
        "Rows are put in bins by score; the absolute difference between mean score "
        "and observed share of the outcome, averaged over bins by their rows. It is "
        "above 0 by chance alone, the more so in small groups.",
        0.0,
    ),
    "calibration_intercept": Metric(
        "Calibration in the large",
        "Intercept",
        "The shift of log odds that makes the mean prediction equal the observed "
        "share; 0 is perfect, above 0 the scores are too low.",
        0.0,
        bounded=False,
    ),
    "calibration_slope": Metric(
        "Calibration slope",
        "Slope",
        "The slope of the outcome's log odds on the score's log odds; 1 is perfect, "
        "below 1 the scores are too extreme.",
        1.0,
        bounded=False,
    ),
    "selection_rate": Metric(
        "Selection rate",
        "Selected",
        "The share of all rows that the model selects (score at or above the "
        "threshold).",
    ),
    "true_positive_rate": Metric(
        "True positive rate (sensitivity)",
        "TPR",
        "Of the patients with the outcome, the share that the model selects.",
        1.0,
    ),
    "false_positive_rate": Metric(
        "False positive rate",
        "FPR",
        "Of the patients without the outcome, the share that the model selects.",
        0.0,
    ),
    "true_negative_rate": Metric(
        "True negative rate (specificity)",
        "TNR",
        "Of the patients without the outcome, the share that the model leaves "
        "unselected.",
        1.0,
    ),
    "false_negative_rate": Metric(
        "False negative rate",
        "FNR",
        "Of the patients with the outcome, the share that the model misses.",
        0.0,
    ),
    "positive_predictive_value": Metric(
        "Positive predictive value (precision)",
        "PPV",
        "Of the patients selected, the share with the outcome. It rises with "
        "prevalence.",
        1.0,
    ),
    "negative_predictive_value": Metric(
        "Negative predictive value",
        "NPV",
        "Of the patients not selected, the share without the outcome. It falls with "
        "prevalence.",
        1.0,
    ),
    "accuracy": Metric(
        "Accuracy", "Accuracy", "The share of rows that the decision gets right.", 1.0
    ),
    "error_rate": Metric(
        "Error rate", "Error", "The share of rows that the decision gets wrong.", 0.0
    ),
    "balanced_accuracy": Metric(
        "Balanced accuracy",
        "Bal. accuracy",
        "The mean of the true positive and the true negative rate.",
        1.0,
    ),
    "f1_score": Metric(
        "F1 score",
        "F1",
        "The harmonic mean of positive predictive value and true positive rate.",
        1.0,
    ),
    "equalized_odds_difference": Metric(
        "Equalized-odds difference",
        "Equalized odds",
        "The larger of two spreads over groups: of the true positive rate and of the "
        "false positive rate.",
        0.0,
    ),
    "demographic_parity_ratio": Metric(
        "Demographic-parity ratio",
        "Parity ratio",
        "The lowest group's selection rate divided by the highest's.",
        1.0,
    ),
}
_SPREADS = {
    "demographic_parity_difference": ("Demographic-parity difference", "Parity"),
    "equal_opportunity_difference": ("Equal-opportunity difference", "TPR"),
    "false_positive_rate_difference": ("False-positive-rate difference", "FPR"),
    "predictive_parity_difference": ("Predictive-parity difference", "PPV"),
    "negative_predictive_value_difference": ("NPV difference", "NPV"),
    "accuracy_difference": ("Accuracy difference", "Accuracy"),
    "auroc_difference": ("AUROC difference", "AUROC"),
    "calibration_intercept_difference": (
        "Calibration-in-the-large difference",
        "Intercept",
    ),
    "calibration_slope_difference": ("Calibration-slope difference", "Slope"),
}
_OF = {
    "demographic_parity_difference": "selection rate",
    "equal_opportunity_difference": "true positive rate",
    "predictive_parity_difference": "positive predictive value",
    "auroc_difference": "AUROC",
    "calibration_intercept_difference": "calibration in the large",
}
METRICS |= {
    name: Metric(
        title,
        f"{short} gap",
        _SPREAD.format(
            _OF.get(name, name.removesuffix("_difference").replace("_", " "))
        ),
        0.0,
        bounded=not name.startswith("calibration_"),
    )
    for name, (title, short) in _SPREADS.items()
}


def describe(name: str) -> Metric:
    """The metric's entry; one made from its name where the glossary has none.

    Example:
      >>> describe("auroc").short, describe("lift_at_ten").title
      ('AUROC', 'Lift at ten')
    """
    words = name.replace("_", " ").capitalize()
    return METRICS.get(name, Metric(words, words, "", bounded=False))


def phrase(name: str) -> str:
    """The metric's title as it stands within a sentence.

    Example:
      >>> phrase("equalized_odds_difference"), phrase("auroc_difference")
      ('equalized-odds difference', 'AUROC difference')
    """
    title = describe(name).title
    return title if title[:2].isupper() else title[0].lower() + title[1:]
