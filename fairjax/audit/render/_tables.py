"""The report's tables: what stands in each cell, and what it is sorted by."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fairjax.audit.formats import (
    NONE,
    STATUS,
    Number,
    count,
    interval,
    number,
    p_value,
    percent,
    select,
    some,
)
from fairjax.audit.glossary import METRICS, RANKING, describe
from fairjax.audit.schema import Change, Document
from fairjax.audit.wording import explain, judge


class Cell(NamedTuple):
    """A cell: its text, a second line, what it is sorted by, and its kind."""

    text: str
    under: str = ""
    value: Number | None = None
    kind: str = ""


class Table(NamedTuple):
    """A table; the first cell of a row names it, the first rows may be pinned."""

    caption: str
    headers: tuple[str, ...]
    rows: list[list[Cell]]
    pinned: int = 0
    numeric: tuple[bool, ...] = ()


_ORDER = {name: n for n, name in enumerate(METRICS)}


def table(
    caption: str, headers: Sequence[str], rows: Iterable[list[Cell]], pinned: int = 0
) -> Table:
    """A table whose columns are numbers where any of their cells is one."""
    rows = list(rows)
    numeric = tuple(
        any(row[k].value is not None for row in rows) for k in range(len(headers))
    )
    return Table(caption, tuple(headers), rows, pinned, numeric)


def figure(value: Number | None, digits: int = 3) -> Cell:
    """A number."""
    return Cell(number(value, digits), value=value, kind="none" * (value is None))


def tally(value: Number | None) -> Cell:
    """A count."""
    return Cell(count(value), value=value, kind="none" * (value is None))


def estimate(entry: Any) -> Cell:
    """An estimate above its interval, or why there is none."""
    status = getattr(entry, "status", "ok")
    if entry is None or entry.estimate is None:
        return Cell(NONE, STATUS.get(status, ""), kind="none")
    under = interval(entry.lower, entry.upper)
    return Cell(
        number(entry.estimate),
        under if under != NONE else "",
        entry.estimate,
        "weak" if STATUS.get(status) else "",
    )


def cohort(document: Document, attribute: str) -> Table:
    """Counts and prevalence of an attribute's groups."""
    rows = [
        [
            Cell(c.group),
            tally(c.rows),
            tally(c.patients),
            tally(c.positives),
            tally(c.negatives),
            Cell(
                percent(c.prevalence),
                ""
                if c.prevalence is None
                else interval(100 * c.lower, 100 * c.upper, 1),
                c.prevalence,
            )
            if c.lower is not None and c.upper is not None
            else Cell(percent(c.prevalence), "", c.prevalence),
            Cell(STATUS[c.status] or "judged"),
        ]
        for c in select(document.cohort, attribute=attribute)
    ]
    headers = ("Group", "Rows", "Patients", "Positives", "Negatives", "Prevalence")
    return table(f"Cohort by {attribute}", (*headers, "Status"), rows)


def performance(document: Document, model: str, attribute: str) -> list[Table]:
    """Metrics by group: those of the score, then those of the decision."""
    entries = select(document.groups, model=model, attribute=attribute)
    cells = {(e.group, e.metric): e for e in entries}
    overall = {e.metric: e for e in select(document.overall, model=model)}
    metrics = sorted({e.metric for e in entries}, key=place)
    groups = select(document.cohort, attribute=attribute)
    found = []
    for what, shown in (
        ("Discrimination and calibration", [m for m in metrics if m in RANKING]),
        ("Decisions at the threshold", [m for m in metrics if m not in RANKING]),
    ):
        if not shown:
            continue
        rows = [[Cell("All patients"), *(estimate(overall.get(m)) for m in shown)]]
        rows += [
            [Cell(c.group), *(estimate(cells.get((c.group, m))) for m in shown)]
            for c in groups
        ]
        caption = f"{what} by {attribute}, {model}"
        headers = ("Group", *(describe(m).short for m in shown))
        found.append(table(caption, headers, rows, pinned=1))
    return found


def details(
    document: Document, model: str, attribute: str, metrics: Sequence[str]
) -> Table:
    """A forest plot's numbers, with denominators, shrunken values and methods."""
    rows = [
        [
            Cell(e.group),
            Cell(describe(e.metric).short),
            figure(e.estimate),
            figure(e.lower),
            figure(e.upper),
            figure(e.shrunken),
            tally(e.denominator),
            tally(e.positives),
            Cell(STATUS[e.status] or e.method or ""),
        ]
        for m in metrics
        for e in select(document.groups, model=model, attribute=attribute, metric=m)
    ]
    headers = ("Group", "Metric", "Estimate", "Lower", "Upper", "Shrunken")
    headers = (*headers, "Denominator", "Positives", "Method")
    return table(f"Numbers of the figure, {attribute}, {model}", headers, rows)


def gaps(document: Document, model: str) -> Table:
    """Every gap of a model, with its test and what may be said of it."""
    confidence = document.settings["confidence"]
    rows = []
    for gap in sorted(
        select(document.gaps, model=model), key=lambda g: place(g.metric)
    ):
        said = Cell(explain(gap, confidence), kind=judge(gap, confidence))
        ends = [gap[k] if gap[k] is not None else NONE for k in ("highest", "lowest")]
        rows.append(
            [
                Cell(gap.attribute),
                Cell(describe(gap.metric).title),
                estimate(gap),
                figure(gap.corrected),
                figure(gap.noise_floor),
                Cell(p_value(gap.p), value=gap.p),
                Cell(p_value(gap.p_adjusted), value=gap.p_adjusted),
                Cell(ends[0], ends[1]),
                said,
            ]
        )
    headers = ("Attribute", "Gap", "Raw", "Corrected", "Noise floor", "p")
    headers = (*headers, "Adjusted p", "Highest, lowest", "Reading")
    return table(f"Gaps between groups, {model}", headers, rows)


def discovery(document: Document) -> Table:
    """What the search over intersections found."""
    rows = [
        [
            Cell(d.group),
            Cell(d.model),
            Cell(describe(d.metric).short),
            tally(d.rows),
            tally(d.positives),
            figure(d.estimate),
            figure(d.rest),
            figure(d.difference),
            Cell(p_value(d.p), value=d.p),
            Cell(p_value(d.p_corrected), value=d.p_corrected),
        ]
        for d in document.discovery
    ]
    headers = ("Group", "Model", "Metric", "Rows", "Positives", "In the group")
    headers = (*headers, "Elsewhere", "Difference", "p", "Corrected p")
    return table("Most disadvantaged groups found by search", headers, rows)


def comparison(document: Document) -> Table:
    """Each model against the baseline, by attribute."""
    rows = [
        [
            Cell(e.attribute),
            Cell(f"{e.model} against {e.baseline}"),
            estimate(e.gain),
            estimate(e.worst),
            Cell(e.worst.group or NONE),
            Cell(some([*e.left_out, *e.withheld]) or NONE),
            figure(e.margin),
            Cell(e.verdict, kind=e.verdict.replace(" ", "-")),
        ]
        for e in document.comparison
    ]
    headers = ("Attribute", "Models", "Overall AUROC change", "Least group's change")
    headers = (*headers, "Of", "Not compared", "Margin", "Verdict")
    return table("Models compared with the first", headers, rows)


def gate(document: Document) -> Table:
    """The rules and their results."""
    rows = [
        [
            Cell(g.rule),
            estimate(g),
            Cell(g.status, kind=g.status),
            Cell(g.reason),
        ]
        for g in document.gate
    ]
    return table("Gate rules", ("Fails if", "Value", "Result", "Reason"), rows)


def quality(document: Document) -> Table:
    """Findings on the data."""
    rows = [
        [
            Cell(f.severity, kind=f.severity),
            Cell(f.message),
            tally(f.rows),
            Cell(f.code),
        ]
        for f in document.quality
    ]
    return table("Data quality findings", ("Severity", "Finding", "Rows", "Code"), rows)


def roc(curves: Sequence[Any]) -> Table:
    """True positive rates of ROC curves where they reach round false positive rates."""
    grid = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
    rows = [
        [Cell(c.group), *(figure(_reached(c.fpr, c.tpr, at)) for at in grid)]
        for c in curves
    ]
    headers = ("Group", *(f"TPR at FPR {at:g}" for at in grid))
    return table(
        "Highest true positive rate within a false positive rate", headers, rows
    )


def calibration(curves: Sequence[Any]) -> Table:
    """All bins of calibration curves."""
    keys = ("predicted", "observed", "lower", "upper")
    rows = [
        [
            Cell(c.group),
            Cell(str(k + 1), value=k + 1),
            *(figure(c[key][k]) for key in keys),
            tally(c.rows[k]),
        ]
        for c in curves
        for k in range(len(c.rows))
    ]
    headers = ("Group", "Bin", "Mean score", "Observed", "Lower", "Upper", "Rows")
    return table("Bins of the calibration curves", headers, rows)


def decision(curves: Sequence[Any]) -> Table:
    """Points of decision curves, about ten each."""
    rows = [
        [
            Cell(c.group),
            figure(c.threshold[k], 2),
            figure(c.net_benefit[k]),
            figure(c.treat_all[k]),
        ]
        for c in curves
        for k in range(0, len(c.threshold), max(len(c.threshold) // 10, 1))
    ]
    headers = ("Group", "Threshold", "Net benefit", "If everyone is selected")
    return table("Points of the decision curves", headers, rows)


def sensitivity(entries: Sequence[Any]) -> Table:
    """Gaps at each threshold."""
    rows = [
        [
            Cell(describe(e.metric).title),
            Cell(e.model),
            figure(e.threshold[k], 2),
            estimate(Change(e.estimate[k], e.lower[k], e.upper[k])),
        ]
        for e in entries
        for k in range(len(e.threshold))
    ]
    return table(
        "Gaps by threshold", ("Gap", "Model", "Threshold", "Value and interval"), rows
    )


def _reached(fpr: Sequence[Any], tpr: Sequence[Any], at: float) -> Number | None:
    known = [
        t for f, t in zip(fpr, tpr, strict=True) if f is not None and f <= at + 1e-12
    ]
    return max((t for t in known if t is not None), default=None)


def place(metric: str) -> tuple[int, str]:
    return _ORDER.get(metric, len(_ORDER)), metric
