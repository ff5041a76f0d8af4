"""The figures of an audit, drawn from the document alone."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl

from fairjax.audit.formats import count, interval, joined, number, plural, select
from fairjax.audit.glossary import describe, phrase
from fairjax.audit.render import _canvas, _curves
from fairjax.audit.render._canvas import COLOURS, LINES, MARKERS, STYLE, Drawing
from fairjax.audit.render._forest import Column, Row, forest
from fairjax.audit.schema import Document, DocumentLike
from fairjax.audit.wording import explain

__all__ = ["COLOURS", "LINES", "MARKERS", "STYLE", "Drawing", "draw", "largest"]

# Panels side by side in one forest plot.
PAIRS = (
    ("Discrimination and calibration", ("auroc", "calibration_slope")),
    ("Error rates at the threshold", ("true_positive_rate", "false_positive_rate")),
    ("Selection and predictive value", ("selection_rate", "positive_predictive_value")),
)
GAPS = (
    "equalized_odds_difference",
    "predictive_parity_difference",
    "demographic_parity_difference",
    "auroc_difference",
)
CURVES_AT_MOST = 8


def draw(document: DocumentLike) -> tuple[Drawing, ...]:
    """Draws all figures of the document, in the order of the report.

    The same document gives the same bytes.

    Example:
      >>> sweep = {"model": "risk", "attribute": "sex", "threshold": [0.3, 0.6],
      ...     "metric": "equalized_odds_difference", "estimate": [0.1, 0.25],
      ...     "lower": [0.0, 0.1], "upper": [0.3, 0.4]}
      >>> data = {"models": [{"name": "risk", "threshold": 0.5}],
      ...     "attributes": [{"name": "sex", "intersection": False}]}
      >>> [drawing] = draw({
      ...     "settings": {"confidence": 0.95}, "data": data, "sensitivity": [sweep],
      ...     "cohort": [], "overall": [],
      ...     "groups": [], "gaps": [], "comparison": [],
      ...     "curves": {"roc": [], "calibration": [], "decision": []}})
      >>> drawing.slug
      'sensitivity-sex'
      >>> drawing.alt.split(". ")[1]
      'equalized-odds difference in risk from 0.100 to 0.250, the largest at 0.60.'
    """
    with mpl.rc_context(_canvas.AUDIT_STYLE):
        drawings = list(_drawings(Document.of(document)))
    taken: set[str] = set()
    for n, drawing in enumerate(drawings):
        slug, more = drawing.slug, 2
        while slug in taken:
            slug, more = f"{drawing.slug}-{more}", more + 1
        taken.add(slug)
        drawings[n] = drawing._replace(slug=slug)
    return tuple(drawings)


def largest(document: DocumentLike, attribute: str, curves: list[Any]) -> list[Any]:
    """Returns the curves of the groups with the most rows, at most eight, in order.

    Example:
      >>> cohort = [{"attribute": "site", "group": str(n), "rows": n} for n in range(9)]
      >>> curves = [{"group": str(n)} for n in range(9)]
      >>> [c["group"] for c in largest({"cohort": cohort}, "site", curves)][:2]
      ['1', '2']
    """
    rows = {
        c.group: c.rows or 0
        for c in select(Document.of(document).cohort, attribute=attribute)
    }
    kept = sorted(curves, key=lambda c: -rows.get(c["group"], 0))[:CURVES_AT_MOST]
    return [c for c in curves if any(c is k for k in kept)]


def _slug(*words: str) -> str:
    """Returns a file name from words: ASCII letters, digits and hyphens."""
    parts = [re.sub(r"[^a-z0-9]+", "-", w.lower()).strip("-")[:40] for w in words]
    return "-".join(part.strip("-") or "x" for part in parts)


def _drawings(document: Document) -> Iterator[Drawing]:
    data = document.data
    models = [m.name for m in data.models]
    attributes = [a.name for a in data.attributes]
    for model in models:
        for attribute in attributes:
            yield from _forests(document, model, attribute)
            yield from _curves_of(document, model, attribute)
    for model in models:
        yield from _gaps(document, model)
    for attribute in attributes:
        yield from _sensitivity(document, attribute)
    if document.comparison:
        yield _quadrant(document)


def _forests(document: Document, model: str, attribute: str) -> Iterator[Drawing]:
    entries = select(document.groups, model=model, attribute=attribute)
    cells = {(e.group, e.metric): e for e in entries}
    overall = {e.metric: e for e in select(document.overall, model=model)}
    found = {e.metric for e in entries}
    cohort = select(document.cohort, attribute=attribute)
    data = document.data
    for title, metrics in PAIRS:
        shown = [m for m in metrics if m in found]
        if not shown:
            continue
        everyone = Row(
            "All patients",
            (count(data.rows_used), count(data.positives)),
            tuple(overall.get(m) for m in shown),
            bold=True,
        )
        rows = [
            Row(
                c.group,
                (count(c.rows), count(c.positives)),
                tuple(cells.get((c.group, m)) for m in shown),
                c.status,
            )
            for c in cohort
        ]
        whole = {m: overall[m].estimate for m in shown if m in overall}
        columns = [_column(m, whole.get(m)) for m in shown]
        svg = forest(
            [everyone, *rows],
            columns,
            ("Rows", "Positives"),
            confidence=document.settings["confidence"],
            heading=_canvas.plain(attribute)[:24],
        )
        yield Drawing(
            "forest",
            model,
            attribute,
            _slug("forest", model, attribute, title.split(" ")[0]),
            f"{title} by {attribute}, {model}",
            _describe_forest(rows, shown),
            svg,
        )


def _column(metric: str, reference: float | None) -> Column:
    entry = describe(metric)
    return Column(entry.short, entry.bounded, reference)


def _describe_forest(rows: list[Row], metrics: list[str]) -> str:
    """Returns alternative text: extremes of each panel, and groups without estimate."""
    parts = []
    for k, metric in enumerate(metrics):
        known = [
            (r.cells[k].estimate, r.name)
            for r in rows
            if r.cells[k] is not None and r.cells[k].estimate is not None
        ]
        if known:
            (low, least), (high, most) = min(known), max(known)
            parts.append(
                f"{describe(metric).short} from {number(low)} ({least}) to "
                f"{number(high)} ({most})"
            )
    few = [
        r.name
        for r in rows
        if all(cell is None or cell.estimate is None for cell in r.cells)
    ]
    text = f"Forest plot of {plural(len(rows), 'group')}: {'; '.join(parts) or 'none'}."
    return f"{text} Without estimate: {joined(few)}." if few else text


def _curves_of(document: Document, model: str, attribute: str) -> Iterator[Drawing]:
    who = {"model": model, "attribute": attribute}
    estimates = {
        (e.group, e.metric): e.estimate for e in select(document.groups, **who)
    }

    def roc(kept: list[Any]) -> tuple[str, bytes]:
        aurocs = {c.group: estimates.get((c.group, "auroc")) for c in kept}
        points = {}
        for c in kept:
            fpr = estimates.get((c.group, "false_positive_rate"))
            tpr = estimates.get((c.group, "true_positive_rate"))
            if fpr is not None and tpr is not None:
                points[c.group] = fpr, tpr
        known = [f"{g} {number(a)}" for g, a in aurocs.items() if a is not None]
        return f". AUROC: {joined(known)}.", _curves.roc(kept, aurocs, points)

    def calibration(kept: list[Any]) -> tuple[str, bytes]:
        svg = _curves.calibration(kept, document.settings["confidence"])
        return f", a panel each. {'; '.join(map(_miscalibration, kept))}.", svg

    def decision(kept: list[Any]) -> tuple[str, bytes]:
        seen = f", a panel each. {'; '.join(map(_useful, kept))}."
        return seen, _curves.decision(kept)

    for kind, title, drawn, make in (
        ("roc", "ROC curves", "ROC curves", roc),
        ("calibration", "Calibration", "Calibration curves", calibration),
        ("decision", "Decision curves", "Decision curves", decision),
    ):
        every = select(document.curves[kind], **who)
        if not every:
            continue
        kept = largest(document, attribute, every)
        seen, svg = make(kept)
        note = f"; the {len(kept)} largest of {len(every)} groups"
        yield Drawing(
            kind,
            model,
            attribute,
            _slug(kind, model, attribute),
            f"{title} by {attribute}, {model}{note if len(every) > len(kept) else ''}",
            f"{drawn} of {plural(len(kept), 'group')}{seen}",
            svg,
        )


def _miscalibration(curve: Any) -> str:
    """Describes a calibration curve relative to the diagonal."""
    pairs = [
        (o - p, n or 0)
        for p, o, n in zip(curve.predicted, curve.observed, curve.rows, strict=True)
        if p is not None and o is not None
    ]
    rows = sum(n for _, n in pairs)
    if not rows:
        return f"{curve.group}: no bins"
    mean = sum(d * n for d, n in pairs) / rows
    if abs(mean) < 0.01:
        return f"{curve.group}: observed and predicted agree on average"
    side = "above" if mean > 0 else "below"
    return f"{curve.group}: observed {number(abs(mean))} {side} predicted on average"


def _useful(curve: Any) -> str:
    """Describes where the model is better than selecting everyone and no one."""
    better = [
        t
        for t, m, a in zip(
            curve.threshold, curve.net_benefit, curve.treat_all, strict=True
        )
        if None not in (t, m, a) and m > max(a, 0.0)
    ]
    if not better:
        return f"{curve.group}: never above both alternatives"
    span = interval(min(better), max(better), 2)
    return f"{curve.group}: above both alternatives at thresholds within {span}"


def _gaps(document: Document, model: str) -> Iterator[Drawing]:
    entries = select(document.gaps, model=model)
    cells = {(e.attribute, e.metric): e for e in entries}
    metrics = [m for m in GAPS if any(e.metric == m for e in entries)]
    confidence = document.settings["confidence"]
    for part in (metrics[:2], metrics[2:]):
        if not part:
            continue
        rows = [
            Row(
                a.name,
                (),
                tuple(cells.get((a.name, m)) for m in part),
                _status(cells, a.name, part),
            )
            for a in document.data.attributes
        ]
        columns = [_column(m, 0.0) for m in part]
        seen = [
            f"{phrase(m)} {number(cell.estimate)} by {r.name}, "
            f"{explain(cell, confidence)}"
            for k, m in enumerate(part)
            for r in rows
            if (cell := r.cells[k]) is not None and cell.estimate is not None
        ]
        yield Drawing(
            "gaps",
            model,
            "",
            _slug("gaps", model, part[0].split("_")[0]),
            f"Gaps between groups, {model}",
            f"Gaps by attribute. {'; '.join(seen)}.",
            forest(
                rows,
                columns,
                (),
                confidence=confidence,
                heading="Attribute",
                reference="no gap",
            ),
        )


def _status(cells: Any, attribute: str, metrics: Sequence[str]) -> str:
    """Returns the status of an attribute's gaps: the first that is not ``"ok"``."""
    found = [cells[key].status for m in metrics if (key := (attribute, m)) in cells]
    return next((status for status in found if status != "ok"), "ok")


def _sensitivity(document: Document, attribute: str) -> Iterator[Drawing]:
    entries = select(document.sensitivity, attribute=attribute)
    if not entries:
        return
    thresholds = {m.name: m.threshold for m in document.data.models}
    titles = {e.metric: describe(e.metric).title for e in entries}
    seen = []
    for entry in entries:
        known = [
            (gap, t)
            for gap, t in zip(entry.estimate, entry.threshold, strict=True)
            if gap is not None and t is not None
        ]
        if known:
            (high, at), (low, _) = max(known), min(known)
            seen.append(
                f"{phrase(entry.metric)} in {entry.model} from {number(low)} to "
                f"{number(high)}, the largest at {number(at, 2)}"
            )
    yield Drawing(
        "sensitivity",
        "",
        attribute,
        _slug("sensitivity", attribute),
        f"Gaps by {attribute} against the threshold",
        f"Gap against threshold. {'; '.join(seen)}.",
        _curves.sensitivity(entries, titles, thresholds),
    )


def _quadrant(document: Document) -> Drawing:
    entries = document.comparison
    seen = [
        f"{e.model} by {e.attribute}: overall {number(e.gain.estimate)}, "
        f"worst group {number(e.worst.estimate)}, {e.verdict}"
        for e in entries
    ]
    return Drawing(
        "quadrant",
        "",
        "",
        "quadrant",
        "Overall gain in AUROC, and gain of the group that gains least",
        f"Quadrant plot of AUROC changes. {'; '.join(seen)}.",
        _curves.quadrant(entries),
    )
