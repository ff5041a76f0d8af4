"""Names and formulas of the metrics of an audit, in words."""

from typing import NamedTuple

from fairjax.metrics import definitions
from fairjax.metrics.definitions import AUDITED, GAPS

# Metrics of the score, which do not depend on the threshold.
RANKING = definitions.SCORES


class Metric(NamedTuple):
    """Names and explanation of a metric in the report.

    Attributes:
      title: Name in headings and sentences.
      short: Name in headers of tables and panels.
      formula: Formula in words.
      perfect: Value of a perfect model; None if there is no such value.
      bounded: Whether values are in [0, 1].
    """

    title: str
    short: str
    formula: str
    perfect: float | None = None
    bounded: bool = True


METRICS: dict[str, Metric] = {
    name: Metric(row.title, row.short, row.words, row.perfect, row.bounded)
    for name, row in definitions.METRICS.items()
    if row.audited
} | {
    name: Metric(
        gap.title,
        gap.short,
        gap.words,
        float(gap.kind == "ratio"),
        definitions.METRICS[gap.rates[0]].bounded,
    )
    for name in AUDITED
    for gap in [GAPS[name]]
}


def describe(name: str) -> Metric:
    """Returns the entry of a metric; makes an entry from an unknown name.

    Example:
      >>> describe("auroc").short, describe("lift_at_ten").title
      ('AUROC', 'Lift at ten')
    """
    words = name.replace("_", " ").capitalize()
    return METRICS.get(name, Metric(words, words, "", bounded=False))


def phrase(name: str) -> str:
    """Returns the title of a metric for use within a sentence.

    Example:
      >>> phrase("equalized_odds_difference"), phrase("auroc_difference")
      ('equalized-odds difference', 'AUROC difference')
    """
    title = describe(name).title
    return title if title[:2].isupper() else title[0].lower() + title[1:]
