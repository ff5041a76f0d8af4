"""Forest plots: rows of estimates with intervals, and their numbers."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fairjax.audit.formats import STATUS, Number, interval, number
from fairjax.audit.render._canvas import (
    BAND,
    COLOURS,
    FAINT,
    INK,
    Sign,
    legend,
    limits,
    panel,
    render,
    sheet,
    wrap,
    write,
)

_NAMES, _COUNT, _PLOT, _TEXT, _EDGE = 1.75, 0.66, 1.6, 1.35, 0.08
_LINE, _HEAD, _FOOT, _LEGEND = 0.155, 0.42, 0.34, 0.26


class Row(NamedTuple):
    """A row: its name, its counts, and an entry or None for each column."""

    name: str
    counts: tuple[str, ...]
    cells: tuple[Any, ...]
    status: str = "ok"
    bold: bool = False


class Column(NamedTuple):
    """A panel: heading, whether values are in [0, 1], and a reference line."""

    title: str
    bounded: bool = True
    reference: Number | None = None


def forest(
    rows: Sequence[Row],
    columns: Sequence[Column],
    counts: Sequence[str],
    *,
    confidence: float,
    heading: str = "Group",
    reference: str = "over all patients",
) -> bytes:
    """Returns the SVG of a forest plot.

    Args:
      rows: The rows. A cell of a row is an entry with ``estimate``, ``lower``,
        ``upper`` and optionally ``corrected`` and ``noise_floor``.
      columns: The panels, one for each cell of a row.
      counts: Headings of the counts.
      confidence: Confidence of the intervals, for their heading.
      heading: Heading of the rows.
      reference: Name of the reference lines, for the legend.
    """
    names = [wrap(row.name, 25) for row in rows]
    heights = [_LINE * len(lines) + 0.11 for lines in names]
    left = _EDGE + _NAMES + _COUNT * len(counts)
    width = left + len(columns) * (_PLOT + _TEXT + 0.16)
    height = _HEAD + sum(heights) + _FOOT + _LEGEND
    figure = Figure(figsize=(width, height))
    page = sheet(figure)
    tops = [_HEAD + sum(heights[:n]) for n in range(len(rows))]
    # Right edges of the columns of counts.
    edges = [_EDGE + _NAMES + _COUNT * (k + 1) - 0.06 for k in range(len(counts))]
    for n, (row, lines) in enumerate(zip(rows, names, strict=True)):
        if n % 2 == 0:
            page.axhspan(tops[n], tops[n] + heights[n], color=BAND, linewidth=0)
        middle = tops[n] + heights[n] / 2
        weight = "bold" if row.bold else "normal"
        name = "\n".join(lines)
        write(page, _EDGE, middle, name, 8.5, weight=weight, linespacing=1.1)
        for x, text in zip(edges, row.counts, strict=True):
            write(page, x, middle, text, ha="right")
    page.text(_EDGE, 0.3, heading, weight="bold", color=INK, fontsize=8.5)
    for x, text in zip(edges, counts, strict=True):
        page.text(x, 0.3, text, weight="bold", ha="right", color=INK, fontsize=8)
    middles = [top + h / 2 for top, h in zip(tops, heights, strict=True)]
    for k, column in enumerate(columns):
        start = left + k * (_PLOT + _TEXT + 0.16) + 0.12
        axes = panel(figure, start, _HEAD, _PLOT, sum(heights), facecolor="none")
        _column(axes, rows, k, column, [m - _HEAD for m in middles], sum(heights))
        page.text(start, 0.3, column.title, weight="bold", color=INK, fontsize=8.5)
        for row, middle in zip(rows, middles, strict=True):
            _beside(page, row, row.cells[k], start + _PLOT + _TEXT, middle)
        right, text = start + _PLOT + _TEXT, f"{100 * confidence:g} % interval"
        page.text(right, 0.3, text, ha="right", color=FAINT, fontsize=7)
    legend(page, _EDGE, height - _LEGEND / 2, _signs(rows, columns, reference))
    return render(figure)


def _signs(
    rows: Sequence[Row], columns: Sequence[Column], reference: str
) -> Iterator[Sign]:
    """Yields the legend of the signs that occur in the panels."""
    cells = [
        (row, cell)
        for row in rows
        for cell in row.cells
        if cell is not None and cell.estimate is not None
    ]
    yield Sign("estimate with interval", COLOURS[0], "-", "o")
    if any(row.status != "ok" for row, _ in cells):
        yield Sign("too few for other metrics", COLOURS[0], "-", "o", hollow=True)
    if any(getattr(cell, "corrected", None) is not None for _, cell in cells):
        yield Sign("corrected for chance", COLOURS[1], "", "D", hollow=True)
    if any(getattr(cell, "noise_floor", None) is not None for _, cell in cells):
        yield Sign("noise floor (chance alone)", "#9aa0a6", band=True)
    if any(column.reference is not None for column in columns):
        yield Sign(reference, FAINT, (0, (4, 2)))


def _column(
    axes: Axes,
    rows: Sequence[Row],
    k: int,
    column: Column,
    middles: Sequence[float],
    height: float,
) -> None:
    """Draws one panel: interval, estimate, corrected estimate and noise floor."""
    shown = [] if column.reference is None else [column.reference]
    axes.set_ylim(height, 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=True, axis="x", alpha=0.35)
    for row, middle in zip(rows, middles, strict=True):
        cell = row.cells[k]
        if cell is None or cell.estimate is None:
            continue
        ends = [cell.lower, cell.upper]
        shown += [v for v in (cell.estimate, *ends) if v is not None]
        floor = getattr(cell, "noise_floor", None)
        if floor is not None:
            band = {"height": 0.17, "color": "#9aa0a6", "alpha": 0.55, "linewidth": 0}
            axes.barh(middle, floor, **band)
            shown.append(floor)
        if None not in ends:
            axes.plot(ends, [middle] * 2, color=COLOURS[0], linewidth=1.4)
        marker, size = ("s", 5.0) if row.bold else ("o", 4.5)
        # Hollow if the group is too small for some metrics.
        inside = COLOURS[0] if row.status == "ok" else "white"
        style = {"color": COLOURS[0], "markersize": size, "markerfacecolor": inside}
        axes.plot(cell.estimate, middle, marker, **style)
        corrected = getattr(cell, "corrected", None)
        if corrected is not None:
            style = {"color": COLOURS[1], "markersize": 4, "markerfacecolor": "white"}
            axes.plot(corrected, middle, "D", **style)
            shown.append(corrected)
    if column.reference is not None:
        axes.axvline(
            column.reference, color=FAINT, linewidth=0.9, linestyle=(0, (4, 2))
        )
    axes.set_xlim(limits(shown or [0.0, 1.0], bounded=column.bounded))
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.tick_params(axis="x", labelsize=7.5, length=2, colors=FAINT)


def _beside(page: Axes, row: Row, cell: Any, right: float, middle: float) -> None:
    """Writes the numbers of a cell, or the reason why it has none."""
    if cell is not None and cell.estimate is not None:
        text = number(cell.estimate)
        if cell.lower is not None or cell.upper is not None:
            text += f" [{interval(cell.lower, cell.upper, between=', ')}]"
        write(page, right, middle, text, ha="right")
        return
    why = STATUS.get(row.status) or "not defined"
    write(page, right, middle, why, 7.5, ha="right", color=FAINT, style="italic")
