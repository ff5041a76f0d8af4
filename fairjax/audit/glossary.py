"""What each metric of an audit is called, and how it is computed, in words."""

from typing import NamedTuple

from fairjax.metrics import definitions
from fairjax.metrics.definitions import AUDITED, GAPS

# Of the score itself, whatever the threshold.
RANKING = definitions.SCORES


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
