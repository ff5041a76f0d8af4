"""Curves by group: ROC, calibration, decision and threshold sensitivity."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fairjax.audit.formats import Number, count, number
from fairjax.audit.render._canvas import (
    COLOURS,
    FAINT,
    INK,
    LINES,
    MARKERS,
    Sign,
    legend,
    panel,
    render,
    sheet,
    wrap,
    write,
)

_DOTTED = (0, (2, 2))
_SIDE, _GAP, _LEFT, _TOP = 1.95, 0.32, 0.62, 0.42
# One more than in the palette, for eight curves in one plot.
_COLOURS, _MARKERS = (*COLOURS, "#7f7f7f"), (*MARKERS, "*")


def roc(
    curves: Sequence[Any],
    aurocs: Mapping[str, Number | None],
    points: Mapping[str, tuple[Number, Number]],
) -> bytes:
    """Draws the ROC curves of all groups in one plot, with their operating points.

    Args:
      curves: The document's entries, at most eight.
      aurocs: Group -> AUROC, for the legend.
      points: Group -> false and true positive rate at the threshold.
    """
    figure = Figure(figsize=(7.4, 4.4))
    axes = panel(figure, 0.6, 0.15, 3.7, 3.7)
    page = sheet(figure)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=_DOTTED)
    y = 0.3
    for n, curve in enumerate(curves):
        colour, line, marker = (
            kind[n % len(kind)] for kind in (_COLOURS, LINES, _MARKERS)
        )
        axes.plot(*_drawn(curve.fpr, curve.tpr), color=colour, linestyle=line)
        point = points.get(curve.group)
        if point is not None:
            axes.plot(*point, marker, color=colour, markersize=6, markeredgecolor="w")
        lines = wrap(curve.group, 34, 2)
        page.plot([4.6, 5.0], [y, y], color=colour, linestyle=line)
        page.plot(4.8, y, marker, color=colour, markersize=5, markeredgecolor="w")
        auroc = aurocs.get(curve.group)
        lines[-1] += "" if auroc is None else f"  (AUROC {number(auroc)})"
        page.text(5.1, y - 0.07, "\n".join(lines), va="top", color=INK, fontsize=8)
        y += 0.16 * len(lines) + 0.1
    if points:
        note = "Markers: operating point at the\nthreshold used."
        page.text(4.6, y + 0.1, note, va="top", color=FAINT, fontsize=7.5)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_xlabel("False positive rate")
    axes.set_ylabel("True positive rate")
    return render(figure)


def calibration(curves: Sequence[Any], confidence: float) -> bytes:
    """Draws a panel for each group: observed fraction against mean score."""
    values = [
        v
        for curve in curves
        for key in ("predicted", "observed", "upper")
        for v in curve[key]
        if v is not None
    ]
    top = min(1.0, 0.1 * np.ceil(10 * max(values, default=1.0) + 0.2))
    figure, panels = _grid(curves, "Mean score", "Observed fraction with the outcome")
    for n, (axes, curve) in enumerate(zip(panels, curves, strict=True)):
        axes.plot([0, top], [0, top], color=FAINT, linewidth=0.8, linestyle=_DOTTED)
        x, y, lower, upper = (
            _numbers(curve[key]) for key in ("predicted", "observed", "lower", "upper")
        )
        axes.vlines(x, lower, upper, color=COLOURS[0], linewidth=1)
        axes.plot(x, y, "o-", color=COLOURS[0], markersize=3.2, linewidth=0.9)
        axes.set_xlim(-0.01 * top, 1.01 * top)
        axes.set_ylim(-0.01 * top, 1.01 * top)
        known = [r for r in curve.rows if r is not None]
        rows = f"n = {count(int(sum(known)))}"
        rows = rows if len(known) == len(x) else "some bins suppressed"
        _title(axes, curve.group, rows)
        _ticks(axes, n)
    _legend(
        figure,
        Sign(f"a bin, {100 * confidence:g} % interval", COLOURS[0], "-", "o"),
        Sign("perfect calibration", FAINT, _DOTTED),
    )
    return render(figure)


def decision(curves: Sequence[Any]) -> bytes:
    """Draws a panel for each group: net benefit of the model, of all and of none."""
    model = np.concatenate([_numbers(c.net_benefit) for c in curves])
    every = np.concatenate([_numbers(c.treat_all) for c in curves])
    top = max(np.nanmax(model, initial=0.01), np.nanmax(every, initial=0.01))
    figure, panels = _grid(curves, "Threshold", "Net benefit per patient")
    for n, (axes, curve) in enumerate(zip(panels, curves, strict=True)):
        x = _numbers(curve.threshold)
        axes.axhline(0, color=FAINT, linewidth=0.8)
        axes.plot(
            x, _numbers(curve.treat_all), color=COLOURS[1], linestyle="--", lw=1.1
        )
        axes.plot(x, _numbers(curve.net_benefit), color=COLOURS[0], lw=1.5)
        axes.set_ylim(-0.25 * top, 1.08 * top)
        axes.set_xlim(left=0)
        _title(axes, curve.group, "")
        _ticks(axes, n)
    _legend(
        figure,
        Sign("the model's decisions", COLOURS[0], "-"),
        Sign("everyone selected", COLOURS[1], "--"),
        Sign("no one selected", FAINT, "-"),
    )
    return render(figure)


def sensitivity(
    entries: Sequence[Any],
    titles: Mapping[str, str],
    thresholds: Mapping[str, Number | None],
) -> bytes:
    """Draws a panel for each metric: the gaps of each model against the threshold.

    Args:
      entries: Of one attribute.
      titles: Metric -> its panel's title.
      thresholds: Model -> the threshold it is used at.
    """
    metrics = list(dict.fromkeys(e.metric for e in entries))
    models = list(dict.fromkeys(e.model for e in entries))
    figure, panels = _grid(metrics, "Threshold", "Gap between groups")
    tops = [v for e in entries for v in (*e.estimate, *e.upper) if v is not None]
    for n, (axes, metric) in enumerate(zip(panels, metrics, strict=True)):
        for entry in (e for e in entries if e.metric == metric):
            k = models.index(entry.model)
            colour, line = COLOURS[k % len(COLOURS)], LINES[k % len(LINES)]
            x = _numbers(entry.threshold)
            axes.fill_between(
                x,
                _numbers(entry.lower),
                _numbers(entry.upper),
                color=colour,
                alpha=0.13,
                linewidth=0,
            )
            axes.plot(x, _numbers(entry.estimate), color=colour, linestyle=line)
            used = thresholds.get(entry.model)
            if used is not None:
                axes.axvline(used, color=colour, linewidth=0.8, linestyle=_DOTTED)
        axes.set_ylim(0, 1.05 * max(tops, default=1.0))
        _title(axes, titles[metric], "")
        _ticks(axes, n)
    signs = [
        Sign(wrap(model, 24, 1)[0], COLOURS[k % len(COLOURS)], LINES[k % len(LINES)])
        for k, model in enumerate(models)
    ]
    signs.append(Sign("interval", FAINT, band=True))
    if any(thresholds.get(model) is not None for model in models):
        signs.append(Sign("threshold used", FAINT, _DOTTED))
    _legend(figure, *signs)
    return render(figure)


def quadrant(entries: Sequence[Any]) -> bytes:
    """Draws the overall gain in AUROC against the smallest gain of a group."""
    figure = Figure(figsize=(7.4, 4.2))
    axes = panel(figure, 0.75, 0.2, 3.7, 3.4)
    page = sheet(figure)
    margin = max(entry.margin or 0.0 for entry in entries)
    values = [
        v
        for e in entries
        for side in (e.gain, e.worst)
        for v in (side.estimate, side.lower, side.upper)
        if v is not None
    ]
    reach = 1.15 * max([abs(v) for v in values] + [2 * margin, 0.01])
    axes.fill_between([0, reach], -margin, reach, color="#009E73", alpha=0.10, lw=0)
    axes.fill_between(
        [-reach, reach], -reach, -margin, color="#D55E00", alpha=0.08, lw=0
    )
    axes.axhline(0, color=FAINT, linewidth=0.8)
    axes.axvline(0, color=FAINT, linewidth=0.8)
    if margin:
        axes.axhline(-margin, color=COLOURS[1], linewidth=0.9, linestyle=(0, (4, 2)))
    y = 0.3
    for n, entry in enumerate(entries):
        gain, worst = entry.gain, entry.worst
        if gain.estimate is None or worst.estimate is None:
            continue
        colour, marker = COLOURS[n % len(COLOURS)], MARKERS[n % len(MARKERS)]
        at = gain.estimate, worst.estimate
        if None not in (gain.lower, gain.upper):
            ends = [gain.lower, gain.upper]
            axes.plot(ends, [at[1]] * 2, color=colour, linewidth=1.1)
        if None not in (worst.lower, worst.upper):
            ends = [worst.lower, worst.upper]
            axes.plot([at[0]] * 2, ends, color=colour, linewidth=1.1)
        axes.plot(*at, marker, color=colour, markersize=6, markeredgecolor="w")
        name = f"{entry.model}, {entry.attribute}: {entry.verdict}"
        lines = wrap(name, 36, 3)
        page.plot(4.75, y, marker, color=colour, markersize=6, markeredgecolor="w")
        page.text(4.9, y - 0.07, "\n".join(lines), va="top", fontsize=8, color=INK)
        y += 0.16 * len(lines) + 0.12
    note = (
        "Green: overall gain, and no group loses\nmore than the margin (dashed).\n"
        "Red: a group loses more than the margin."
    )
    page.text(4.7, y + 0.1, note, va="top", fontsize=7.5, color=FAINT)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_xlabel("Change of the overall AUROC")
    axes.set_ylabel("Smallest change of a group's AUROC")
    return render(figure)


def _legend(figure: Figure, *signs: Sign) -> None:
    """Draws a legend at the foot of a grid."""
    legend(sheet(figure), _LEFT, figure.get_size_inches()[1] - 0.14, signs)


def _grid(items: Sequence[Any], across: str, up: str) -> tuple[Figure, list[Axes]]:
    """Returns square panels in rows of four, with room for a legend below them."""
    columns = min(len(items), 4)
    rows = -(-len(items) // 4)
    width = max(_LEFT + columns * (_SIDE + _GAP), 5.8)
    height = rows * (_SIDE + _TOP + 0.22) + 0.5
    figure = Figure(figsize=(width, height))
    panels = [
        panel(
            figure,
            _LEFT + (n % 4) * (_SIDE + _GAP),
            _TOP + (n // 4) * (_SIDE + _TOP + 0.22),
            _SIDE,
            _SIDE,
        )
        for n in range(len(items))
    ]
    page = sheet(figure)
    bottom = height - 0.34
    middle = _LEFT + (columns * (_SIDE + _GAP) - _GAP) / 2
    write(page, middle, bottom, across, 8.5, ha="center")
    write(page, 0.13, (height - 0.5) / 2, up, 8.5, rotation=90, ha="center")
    return figure, panels


def _title(axes: Axes, name: str, note: str) -> None:
    lines = wrap(name, 32, 1 if note else 2)
    if note:
        lines = [*lines, note]
    axes.set_title("\n".join(lines), fontsize=8, loc="left", pad=3, color=INK)


def _ticks(axes: Axes, n: int) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.tick_params(labelsize=7, length=2, labelleft=n % 4 == 0, colors=FAINT)


def _numbers(values: Sequence[Number | None]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], float)


def _drawn(x: Sequence[Number | None], y: Sequence[Number | None]) -> Any:
    """Returns at most 200 points of the curve, which look the same as all points."""
    points = np.stack([_numbers(x), _numbers(y)])
    if points.shape[1] <= 200:
        return points
    kept = np.unique(np.linspace(0, points.shape[1] - 1, 200).astype(int))
    return points[:, kept]
