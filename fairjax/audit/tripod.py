"""TRIPOD+AI topics that sections of the report support evidence for.

The reporting guideline is Collins et al., BMJ 2024;385:e078378. Topics are named here
in words of our own; what an item asks for in full is in the guideline.
"""

from fairjax.audit.schema import Document, DocumentLike

GUIDELINE = "Collins et al., BMJ 2024;385:e078378"
# Topic, item, the report's section, and the document's entry that it needs.
_TOPICS = (
    ("Preparing and checking the data", "7", "quality", "quality"),
    ("Which outcome is predicted", "8", "audited", None),
    ("Number of patients and of outcomes", "10", "cohort", None),
    ("Handling of missing values", "11", "audited", None),
    ("Performance measures and plots, and why", "12", "glossary", None),
    ("Differences in performance between groups, method", "12", "gaps", "gaps"),
    ("Fairness: how it was examined", "14", "gaps", "gaps"),
    ("Form of the output and its thresholds", "15", "audited", None),
    ("Thresholds: what another one would change", "15", "sensitivity", "sensitivity"),
    ("Code and settings to repeat the analysis", "18", "reproduce", None),
    ("Flow and description of participants", "20", "cohort", None),
    ("Performance with intervals, also by group", "23", "performance", "groups"),
    ("Differences in performance between groups", "23", "gaps", "gaps"),
    ("Groups not foreseen", "23", "discovery", "discovery"),
    ("A changed model against the former one", "24", "comparison", "comparison"),
    ("Interpretation, fairness included", "25", "summary", None),
    ("Limits of the study", "26", "limits", None),
)


def tripod_ai(document: DocumentLike) -> list[dict[str, str]]:
    """The topics, each with the guideline's item and the section that bears on it.

    A topic whose section the audit has no results for is left out.

    Example:
      >>> topics = tripod_ai({"gaps": []})
      >>> topics[0]
      {'topic': 'Which outcome is predicted', 'item': '8', 'section': 'audited'}
      >>> any(t["section"] == "gaps" for t in topics)
      False
    """
    document = Document.of(document)
    return [
        {"topic": topic, "item": item, "section": section}
        for topic, item, section, needs in _TOPICS
        if needs is None or getattr(document, needs, None)
    ]
