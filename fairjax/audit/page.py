"""The report of an audit: one HTML file that loads nothing from elsewhere."""

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

# Anchor and title of each section, and the document's entry that the section needs.
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
    "min_positives": "Fewest positives for a group to be assessed",
    "min_negatives": "Fewest negatives for a group to be assessed",
    "suppress_below": "Cells suppressed below",
    "margin": "Loss of AUROC that counts as no harm",
    "correction": "Correction for multiple tests",
    "intersections": "Intersections",
}


class Picture(NamedTuple):
    """A figure of the page: drawing, source, size in pixels, and table of numbers."""

    drawing: Drawing
    source: str
    width: int
    height: int
    table: Table | None


def page(document: DocumentLike, drawings: Sequence[Drawing]) -> str:
    """Returns the text of ``report.html``.

    The same document and figures give the same text. All text of the document is
    escaped, and the page runs no script except its own.

    Args:
      document: The audit.
      drawings: The figures, from :func:`fairjax.audit.figures.draw`.

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
    """Returns the headline above the summary, and its CSS class."""
    gaps, statuses = document.gaps, [rule.status for rule in document.gate]
    confidence = document.settings["confidence"]
    # The verdict counts every gap; most sentences of the summary use headline gaps.
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
    # Not green if a difference was shown, even if the gate passed.
    if kind == "neutral" and statuses and not {"clear", "lead"} & found:
        kind = "passed"
    return {"kind": kind, "text": text}


def _settings(document: Document) -> list[tuple[str, str]]:
    """Returns the settings that are not empty, settings with a title first."""
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
    # Sizes in pixels, so that the layout does not move while images load.
    width, height = (round(float(m[1]) * 4 / 3) if m else 0 for m in (size, tall))
    source = f"data:image/svg+xml;base64,{encoded}"
    return Picture(drawing, source, width, height, _numbers(document, drawing))


def _numbers(document: Document, drawing: Drawing) -> Table | None:
    """Returns the table of a figure's numbers; None if the section has this table."""
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
    """Returns name, title, formula and perfect value of the document's metrics."""
    kinds = ("overall", "groups", "gaps", "sensitivity", "discovery")
    used = {entry.metric for kind in kinds for entry in document[kind]}
    found = []
    for metric in sorted(used, key=_tables.place):
        entry = describe(metric)
        perfect = "" if entry.perfect is None else number(entry.perfect, 0)
        found.append((metric, entry.title, entry.formula, perfect))
    return found
