"""Tables of the report: the text of each cell, and its value for sorting."""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
from fairjax.audit.schema import Change, Cohort, Document
from fairjax.audit.wording import explain, judge


class Cell(NamedTuple):
    """A cell: its text, a second line, its value for sorting, and its CSS class."""

    text: str
    under: str = ""
    value: Number | None = None
    kind: str = ""


class Table(NamedTuple):
    """A table; a row's first cell is its header, and ``pinned`` rows stay first."""

    caption: str
    headers: tuple[str, ...]
    rows: list[list[Cell]]
    pinned: int = 0
    numeric: tuple[bool, ...] = ()


_ORDER = {name: n for n, name in enumerate(METRICS)}


def table(
    caption: str, headers: Sequence[str], rows: Iterable[list[Cell]], pinned: int = 0
) -> Table:
    """Returns a table; a column is numeric if one of its cells has a value."""
    rows = list(rows)
    numeric = tuple(
        any(row[k].value is not None for row in rows) for k in range(len(headers))
    )
    return Table(caption, tuple(headers), rows, pinned, numeric)


def columns(
    caption: str, entries: Iterable[Any], cells: Mapping[str, Callable[[Any], Cell]]
) -> Table:
    """Returns a table of entries from headings and functions that make cells."""
    rows = [[cell(entry) for cell in cells.values()] for entry in entries]
    return table(caption, tuple(cells), rows)


def figure(value: Number | None, digits: int = 3) -> Cell:
    """Returns a cell with a number."""
    return Cell(number(value, digits), value=value, kind="none" * (value is None))


def chance(value: Number | None) -> Cell:
    """Returns a cell with a p-value."""
    return Cell(p_value(value), value=value)


def tally(value: Number | None) -> Cell:
    """Returns a cell with a count."""
    return Cell(count(value), value=value, kind="none" * (value is None))


def estimate(entry: Any) -> Cell:
    """Returns a cell with an estimate above its interval, or why it has none."""
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
    """Returns a table of counts and prevalence of an attribute's groups."""
    return columns(
        f"Cohort by {attribute}",
        select(document.cohort, attribute=attribute),
        {
            "Group": lambda c: Cell(c.group),
            "Rows": lambda c: tally(c.rows),
            "Patients": lambda c: tally(c.patients),
            "Positives": lambda c: tally(c.positives),
            "Negatives": lambda c: tally(c.negatives),
            "Prevalence": _prevalence,
            "Status": lambda c: Cell(STATUS[c.status] or "assessed"),
        },
    )


def _prevalence(member: Cohort) -> Cell:
    value, lower, upper = member.prevalence, member.lower, member.upper
    ends = ""
    if value is not None and lower is not None and upper is not None:
        ends = interval(100 * lower, 100 * upper, 1)
    return Cell(percent(value), ends, value)


def performance(document: Document, model: str, attribute: str) -> list[Table]:
    """Returns tables of metrics by group: metrics of the score, then of decisions."""
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
    """Returns a table of a forest plot's numbers, with denominators and methods."""
    mine = select(document.groups, model=model, attribute=attribute)
    return columns(
        f"Numbers of the figure, {attribute}, {model}",
        [e for metric in metrics for e in select(mine, metric=metric)],
        {
            "Group": lambda e: Cell(e.group),
            "Metric": lambda e: Cell(describe(e.metric).short),
            "Estimate": lambda e: figure(e.estimate),
            "Lower": lambda e: figure(e.lower),
            "Upper": lambda e: figure(e.upper),
            "Shrunken": lambda e: figure(e.shrunken),
            "Denominator": lambda e: tally(e.denominator),
            "Positives": lambda e: tally(e.positives),
            "Method": lambda e: Cell(STATUS[e.status] or e.method or ""),
        },
    )


def gaps(document: Document, model: str) -> Table:
    """Returns a table of a model's gaps, with their tests and interpretation."""
    confidence = document.settings["confidence"]
    return columns(
        f"Gaps between groups, {model}",
        sorted(select(document.gaps, model=model), key=lambda g: place(g.metric)),
        {
            "Attribute": lambda g: Cell(g.attribute),
            "Gap": lambda g: Cell(describe(g.metric).title),
            "Raw": estimate,
            "Corrected": lambda g: figure(g.corrected),
            "Noise floor": lambda g: figure(g.noise_floor),
            "p": lambda g: chance(g.p),
            "Adjusted p": lambda g: chance(g.p_adjusted),
            "Highest, lowest": lambda g: Cell(
                NONE if g.highest is None else g.highest,
                NONE if g.lowest is None else g.lowest,
            ),
            "Interpretation": lambda g: Cell(
                explain(g, confidence), kind=judge(g, confidence)
            ),
        },
    )


def discovery(document: Document) -> Table:
    """Returns a table of the groups that the search found."""
    return columns(
        "Most disadvantaged groups found by search",
        document.discovery,
        {
            "Group": lambda d: Cell(d.group),
            "Model": lambda d: Cell(d.model),
            "Metric": lambda d: Cell(describe(d.metric).short),
            "Rows": lambda d: tally(d.rows),
            "Positives": lambda d: tally(d.positives),
            "In the group": lambda d: figure(d.estimate),
            "Elsewhere": lambda d: figure(d.rest),
            "Difference": lambda d: figure(d.difference),
            "p": lambda d: chance(d.p),
            "Corrected p": lambda d: chance(d.p_corrected),
        },
    )


def comparison(document: Document) -> Table:
    """Returns a table that compares each model with the baseline, by attribute."""
    return columns(
        "Models compared with the first",
        document.comparison,
        {
            "Attribute": lambda e: Cell(e.attribute),
            "Models": lambda e: Cell(f"{e.model} against {e.baseline}"),
            "Overall AUROC change": lambda e: estimate(e.gain),
            "Smallest change of a group": lambda e: estimate(e.worst),
            "Group": lambda e: Cell(e.worst.group or NONE),
            "Not compared": lambda e: Cell(some([*e.left_out, *e.withheld]) or NONE),
            "Margin": lambda e: figure(e.margin),
            "Verdict": lambda e: Cell(e.verdict, kind=e.verdict.replace(" ", "-")),
        },
    )


def gate(document: Document) -> Table:
    """Returns a table of the rules and their results."""
    return columns(
        "Gate rules",
        document.gate,
        {
            "Fails if": lambda g: Cell(g.rule),
            "Value": estimate,
            "Result": lambda g: Cell(g.status, kind=g.status),
            "Reason": lambda g: Cell(g.reason),
        },
    )


def quality(document: Document) -> Table:
    """Returns a table of the findings on the data."""
    return columns(
        "Data quality findings",
        document.quality,
        {
            "Severity": lambda f: Cell(f.severity, kind=f.severity),
            "Finding": lambda f: Cell(f.message),
            "Rows": lambda f: tally(f.rows),
            "Code": lambda f: Cell(f.code),
        },
    )


def roc(curves: Sequence[Any]) -> Table:
    """Returns a table of true positive rates at round false positive rates."""
    grid = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
    rows = [
        [Cell(c.group), *(figure(_reached(c.fpr, c.tpr, at)) for at in grid)]
        for c in curves
    ]
    headers = ("Group", *(f"TPR at FPR {at:g}" for at in grid))
    return table(
        "Highest true positive rate up to a false positive rate", headers, rows
    )


def calibration(curves: Sequence[Any]) -> Table:
    """Returns a table of all bins of calibration curves."""
    rows = [
        [Cell(c.group), Cell(str(k), value=k), *map(figure, point), tally(number_of)]
        for c in curves
        for k, (*point, number_of) in enumerate(
            zip(c.predicted, c.observed, c.lower, c.upper, c.rows, strict=True), 1
        )
    ]
    headers = ("Group", "Bin", "Mean score", "Observed", "Lower", "Upper", "Rows")
    return table("Bins of the calibration curves", headers, rows)


def decision(curves: Sequence[Any]) -> Table:
    """Returns a table of about ten points of each decision curve."""
    rows = []
    for c in curves:
        points = list(zip(c.threshold, c.net_benefit, c.treat_all, strict=True))
        for at, *benefits in points[:: max(len(points) // 10, 1)]:
            rows.append([Cell(c.group), figure(at, 2), *map(figure, benefits)])
    headers = ("Group", "Threshold", "Net benefit", "If everyone is selected")
    return table("Points of the decision curves", headers, rows)


def sensitivity(entries: Sequence[Any]) -> Table:
    """Returns a table of the gaps at each threshold."""
    rows = [
        [Cell(describe(e.metric).title), Cell(e.model), figure(at, 2), estimate(gap)]
        for e in entries
        for at, gap in zip(
            e.threshold, map(Change, e.estimate, e.lower, e.upper), strict=True
        )
    ]
    headers = ("Gap", "Model", "Threshold", "Value and interval")
    return table("Gaps by threshold", headers, rows)


def _reached(fpr: Sequence[Any], tpr: Sequence[Any], at: float) -> Number | None:
    pairs = zip(fpr, tpr, strict=True)
    reached = [t for f, t in pairs if None not in (f, t) and f <= at + 1e-12]
    return max(reached, default=None)


def place(metric: str) -> tuple[int, str]:
    return _ORDER.get(metric, len(_ORDER)), metric
