"""The audit's report: one HTML file that opens anywhere, with nothing fetched."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fairjax.audit._templates import environment, sentences, text_of
from fairjax.audit.figures import PAIRS, largest
from fairjax.audit.formats import joined, number, select
from fairjax.audit.glossary import describe
from fairjax.audit.render import _tables
from fairjax.audit.render._canvas import Drawing
from fairjax.audit.render._tables import Table
from fairjax.audit.schema import Document, DocumentLike
from fairjax.audit.tripod import GUIDELINE
from fairjax.audit.wording import judge

# Anchor of each section, its title, and the document's entry that it needs.
SECTIONS = (
    ("summary", "Summary", None),
    ("audited", "What was audited", None),
    ("quality", "Data quality", None),
    ("cohort", "Cohort", None),
    ("performance", "Performance by group", "groups"),
    ("curves", "Curves by group", "curves"),
    ("gaps", "Gaps between groups", "gaps"),
    ("sensitivity", "Threshold sensitivity", "sensitivity"),
    ("discovery", "Worst intersections", "discovery"),
    ("comparison", "Models compared", "comparison"),
    ("limits", "What the data cannot tell", None),
    ("tripod", "TRIPOD+AI topics", None),
    ("reproduce", "How to reproduce", None),
    ("glossary", "Glossary of metrics", None),
)
_FIXED_SETTINGS = {
    "confidence": "Confidence of intervals",
    "seed": "Seed",
    "replicates": "Draws of the simulations",
    "min_positives": "Fewest positives for a group to be judged",
    "min_negatives": "Fewest negatives for a group to be judged",
    "suppress_below": "Cells suppressed below",
    "margin": "Margin of no harm (AUROC)",
    "correction": "Correction for multiple tests",
    "intersections": "Intersections",
}


class Picture(NamedTuple):
    """A figure of the page: the drawing, its source, its size and its numbers."""

    drawing: Drawing
    source: str
    width: int
    height: int
    table: Table | None


def page(document: DocumentLike, drawings: Sequence[Drawing]) -> str:
    """The text of ``report.html``; the same document and figures give the same text.

    All text of the document is escaped; scripts other than the page's own cannot run.

    Example:
      >>> from fairjax.audit.wording import words
      >>> document = {"cohort": [], "groups": [], "gaps": [], "gate": [],
      ...     "settings": {"confidence": 0.95}, "quality": [], "overall": [],
      ...     "discovery": [], "comparison": [], "sensitivity": [],
      ...     "fairjax_version": "0.1.0", "schema_version": "1.0",
      ...     "curves": {"roc": [], "calibration": [], "decision": []},
      ...     "data": {"models": [], "attributes": [], "rows_used": 3,
      ...         "rows_read": 3, "rows_left_out": {}, "missing": {}, "patients": None,
      ...         "source": "<b>.csv", "sha256": None,
      ...         "outcome": {"column": "died", "positive": "1"},
      ...         "positives": 1, "prevalence": 1 / 3}}
      >>> text = page(document | words(document), ())
      >>> "&lt;b&gt;.csv" in text, "<b>.csv" in text
      (True, False)
    """
    document = Document.of(document)
    script, style = text_of("render/report.js"), text_of("render/report.css")
    digest = hashlib.sha256(script.encode()).digest()
    pictures = [_picture(document, drawing) for drawing in drawings]
    shown = document.curves
    curves = shown.roc or shown.calibration or shown.decision
    data = document.data
    return (
        environment(escape=True)
        .get_template("render/template.html")
        .render(
            document=document,
            data=data,
            title=document.title or _title(document),
            sections=[
                (anchor, title)
                for anchor, title, needs in SECTIONS
                if needs is None or (curves if needs == "curves" else document[needs])
            ],
            section_titles={anchor: title for anchor, title, _ in SECTIONS},
            verdict=_verdict(document),
            attributes={a.name for a in data.attributes},
            settings=_settings(document),
            tables=_tables,
            pictures=pictures,
            glossary=_glossary(document),
            guideline=GUIDELINE,
            script=script,
            style=style,
            script_hash=base64.b64encode(digest).decode(),
        )
    )


def _title(document: Document) -> str:
    models = [m.name for m in document.data.models]
    return f"Subgroup audit of {joined(models) or document.data.source}"


def _verdict(document: Document) -> dict[str, str]:
    """The one line above the summary, and its colour."""
    gaps, statuses = document.gaps, [rule.status for rule in document.gate]
    confidence = document.settings["confidence"]
    # Every gap counts here; the summary's sentences name those of one metric.
    found = {judge(gap, confidence) for gap in gaps}
    [text] = sentences(
        "verdict",
        statuses=statuses,
        found=found,
        nothing_known=found <= {"unknown"},
        withheld=any(gap.withheld for gap in gaps),
        most=max((len(g.compared + g.left_out) for g in gaps), default=0),
    )
    kind = next((s for s in ("failed", "undecided") if s in statuses), "neutral")
    # A passed gate is no green light beside a difference that was shown.
    if kind == "neutral" and statuses and not {"clear", "lead"} & found:
        kind = "passed"
    return {"kind": kind, "text": text}


def _settings(document: Document) -> list[tuple[str, str]]:
    """The settings that say something, those that have a name first."""
    names = dict.fromkeys(_FIXED_SETTINGS) | dict.fromkeys(sorted(document.settings))
    found = []
    for key in names:
        value = document.settings.get(key)
        if value is None or value == [] or value == {}:
            continue
        text = value
        if isinstance(value, bool):
            text = "yes" if value else "no"
        elif not isinstance(value, str):
            text = json.dumps(value, ensure_ascii=False, sort_keys=True)
        name = _FIXED_SETTINGS.get(key, key.replace("_", " ").capitalize())
        found.append((name, text))
    return found


def _picture(document: Document, drawing: Drawing) -> Picture:
    encoded = base64.b64encode(drawing.svg).decode()
    size = re.search(rb'<svg[^>]* width="([\d.]+)pt"', drawing.svg)
    tall = re.search(rb'<svg[^>]* height="([\d.]+)pt"', drawing.svg)
    # Points to pixels, so that the page does not jump while pictures load.
    width, height = (round(float(m[1]) * 4 / 3) if m else 0 for m in (size, tall))
    source = f"data:image/svg+xml;base64,{encoded}"
    return Picture(drawing, source, width, height, _numbers(document, drawing))


def _numbers(document: Document, drawing: Drawing) -> Table | None:
    """The table beside a figure; none where the section has the same table."""
    model, attribute = drawing.model, drawing.attribute
    if drawing.kind == "forest":
        metrics = next(m for title, m in PAIRS if drawing.title.startswith(title))
        return _tables.details(document, model, attribute, metrics)
    if drawing.kind == "sensitivity":
        return _tables.sensitivity(select(document.sensitivity, attribute=attribute))
    make = {
        "roc": _tables.roc,
        "calibration": _tables.calibration,
        "decision": _tables.decision,
    }.get(drawing.kind)
    if make is None:
        return None
    who: Mapping[str, str] = {"model": model, "attribute": attribute}
    return make(
        largest(document, attribute, select(document.curves[drawing.kind], **who))
    )


def _glossary(document: Document) -> list[tuple[str, str, str, str]]:
    """The metrics that the document has: name, title, formula, perfect value."""
    kinds = ("overall", "groups", "gaps", "sensitivity", "discovery")
    used = {entry.metric for kind in kinds for entry in document[kind]}
    found = []
    for metric in sorted(used, key=_tables.place):
        entry = describe(metric)
        perfect = "" if entry.perfect is None else number(entry.perfect, 0)
        found.append((metric, entry.title, entry.formula, perfect))
    return found
