"""TRIPOD+AI topics that sections of the report support evidence for.

The reporting guideline is Collins et al., BMJ 2024;385:e078378. The topics here
paraphrase the items; the guideline has their full text.
"""

from fairjax.audit.schema import Document, DocumentLike

GUIDELINE = "Collins et al., BMJ 2024;385:e078378"
# Topic, item, section of the report, and the document's entry that the section needs.
_TOPICS = (
    ("Preparing and checking the data", "7", "quality", "quality"),
    ("Predicted outcome", "8", "audited", None),
    ("Number of patients and of outcomes", "10", "cohort", None),
    ("Handling of missing values", "11", "audited", None),
    ("Performance measures and plots, with reasons", "12", "glossary", None),
    ("Method for differences in performance between groups", "12", "gaps", "gaps"),
    ("Methods for fairness", "14", "gaps", "gaps"),
    ("Model output and thresholds", "15", "audited", None),
    ("Effect of other thresholds", "15", "sensitivity", "sensitivity"),
    ("Code and settings that reproduce the analysis", "18", "reproduce", None),
    ("Flow and description of participants", "20", "cohort", None),
    ("Performance with intervals, also by group", "23", "performance", "groups"),
    ("Differences in performance between groups", "23", "gaps", "gaps"),
    ("Groups that were not prespecified", "23", "discovery", "discovery"),
    ("Updated model against the earlier model", "24", "comparison", "comparison"),
    ("Interpretation, including fairness", "25", "summary", None),
    ("Limits of the study", "26", "limits", None),
)


def tripod_ai(document: DocumentLike) -> list[dict[str, str]]:
    """Returns the topics, with the guideline's item and the section of the report.

    Topics of sections without results are left out.

    Example:
      >>> topics = tripod_ai({"gaps": []})
      >>> topics[0]
      {'topic': 'Predicted outcome', 'item': '8', 'section': 'audited'}
      >>> any(t["section"] == "gaps" for t in topics)
      False
    """
    document = Document.of(document)
    return [
        {"topic": topic, "item": item, "section": section}
        for topic, item, section, needs in _TOPICS
        if needs is None or getattr(document, needs, None)
    ]
