"""What the audited data cannot tell, depending on the audit.

The sentences are in ``words/limits.txt``.
"""

from fairjax.audit._templates import sentences
from fairjax.audit.formats import count
from fairjax.audit.schema import Document, DocumentLike


def limits(document: DocumentLike) -> list[str]:
    """Returns the limits that apply to the document, one sentence or more each.

    Example:
      >>> found = limits({"cohort": [], "gaps": [], "settings": {"confidence": 0.95},
      ...     "discovery": [], "comparison": [], "sensitivity": [],
      ...     "data": {"models": [], "attributes": [], "rows_used": 3,
      ...         "rows_read": 3, "rows_left_out": {}, "patients": None}})
      >>> found[2].split(",")[0]
      'No patient identifier was given'
    """
    document = Document.of(document)
    data, cohort = document.data, document.cohort
    left_out = {reason: n for reason, n in data.rows_left_out.items() if n}
    single = [a for a in data.attributes if not a.intersection]
    return sentences(
        "limits",
        document=document,
        data=data,
        settings=document.settings,
        left_out=left_out,
        reasons=[f"{reason}: {count(n)}" for reason, n in left_out.items()],
        few=sum(c.status == "insufficient" for c in cohort),
        suppressed=any(c.status == "suppressed" for c in cohort),
        missing=[a.name for a in single if "missing" in a.levels],
        binned=[a.name for a in data.attributes if a.binned],
        uncrossed=len(single) == len(data.attributes) > 1,
        thresholds=[m.threshold for m in data.models],
        sources=" ".join(m.threshold_source for m in data.models),
        tests=sum(g.p is not None for g in document.gaps),
    )
