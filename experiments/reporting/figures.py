"""Figures of an experiment's results, saved as PNG."""

import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from PIL import Image

from experiments.core.files import write_whole
from fairjax.audit.figures import COLOURS, MARKERS, STYLE
from fairjax.evaluation import Evaluation


class Axis(NamedTuple):
    """A metric along an axis, and the axis label."""

    metric: str
    label: str


def save(figure: Figure, folder: Path, name: str) -> None:
    """Writes ``name.png``, with the same bytes for the same figure."""
    drawn = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(drawn, format="png", dpi=150)
    image = palette(Image.open(drawn))
    write_whole(folder / f"{name}.png", lambda path: image.save(path, optimize=True))


def palette(image: Image.Image) -> Image.Image:
    """Reduces a figure to 256 colours, which makes its file a third as large.

    No channel changes by more than about 15 of 255: heat maps keep rare colours.
    """
    return image.convert("RGB").quantize(
        256, method=Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE
    )


def tradeoff(
    curves: Mapping[str, Sequence[tuple[str, Evaluation]]],
    points: Mapping[str, Evaluation],
    *,
    title: str,
    x: Axis,
    y: Axis,
    baseline: str,
    near: Collection[str] = (),
) -> Figure:
    """Draws one metric against another, such as AUROC against a gap.

    Args:
      curves: Method -> its settings, drawn as a line with labels.
      points: Methods with one setting.
      title: Title of the figure.
      x: The horizontal axis.
      y: The vertical axis.
      baseline: The point to highlight.
      near: Points that a second panel enlarges; without points, there is one panel.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.8 if near else 7.2, 4.8), layout="constrained")
        panels = figure.subplots(1, 2 if near else 1, squeeze=False)[0]
        for axes in panels:
            _plane(axes, curves, points, x, y, baseline)
        if near:
            seen = [e for name, e in points.items() if name in near]
            for axis, place in ((x, "x"), (y, "y")):
                values = [e.mean(axis.metric) for e in seen]
                margin = 0.08 * (max(values) - min(values)) + 1e-4
                panels[1].set(
                    **{f"{place}lim": (min(values) - margin, max(values) + margin)}
                )
            panels[0].set_title("All methods", fontsize=9)
            panels[1].set_title("Close up", fontsize=9)
            figure.suptitle(title)
        else:
            panels[0].set_title(title)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper")
    return figure


def _plane(
    axes: Axes,
    curves: Mapping[str, Sequence[tuple[str, Evaluation]]],
    points: Mapping[str, Evaluation],
    x: Axis,
    y: Axis,
    baseline: str,
) -> None:
    for number, (family, settings) in enumerate(curves.items()):
        colour, marker = COLOURS[number], MARKERS[number]
        places = [(e.mean(x.metric), e.mean(y.metric)) for _, e in settings]
        across, up = zip(*places, strict=True)
        look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4}
        axes.plot(across, up, **look, label=family)
        beside: dict[str, Any] = {"xytext": (3, 3), "textcoords": "offset points"}
        for (setting, _), place in zip(settings, places, strict=True):
            axes.annotate(setting, place, **beside, fontsize=6.5, color=colour)
    for number, (name, evaluation) in enumerate(points.items()):
        # All shapes in outline, then the same shapes filled, so that points differ.
        marker = MARKERS[number % len(MARKERS)]
        filled = name == baseline or number >= len(MARKERS)
        colour = "#000000" if name == baseline else "#777777"
        axes.plot(
            evaluation.mean(x.metric),
            evaluation.mean(y.metric),
            marker,
            color=colour,
            markerfacecolor=colour if filled else "white",
            markersize=7 if name == baseline else 5,
            label=name,
        )
    axes.set_xlabel(x.label)
    axes.set_ylabel(y.label)


def heat_map(
    values: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    label: str,
    digits: int = 3,
) -> Figure:
    """Draws differences by row and column, each written in its cell with its interval.

    Colours diverge from 0, orange below and purple above, which readers with any
    colour vision can distinguish. Intervals that exclude 0 are in bold.

    Args:
      values: ``[rows, columns]``; NaN is shown as a dash.
      low: Lower ends of the intervals.
      high: Upper ends of the intervals.
      rows: Names of the rows.
      columns: Names of the columns.
      title: Title of the figure.
      label: Label of the differences.
      digits: Digits of the numbers.
    """
    finite = np.abs(values[np.isfinite(values)])
    reach = float(finite.max(initial=0)) or 1.0
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(2.4 + 1.35 * len(columns), 1.4 + 0.55 * len(rows)),
            layout="constrained",
        )
        axes = figure.subplots()
        axes.set_facecolor("#dddddd")
        image = axes.imshow(
            np.ma.masked_invalid(values), "PuOr", aspect="auto", vmin=-reach, vmax=reach
        )
        for (r, c), value in np.ndenumerate(values):
            text, weight = "-", "normal"
            if np.isfinite(value):
                ends = f"[{low[r, c]:+.{digits}f}, {high[r, c]:+.{digits}f}]"
                text = f"{value:+.{digits}f}\n{ends}"
            if low[r, c] > 0 or high[r, c] < 0:
                weight = "bold"
            _write(axes, image, (r, c), value, text, fontsize=7, weight=weight)
        axes.set_xticks(np.arange(len(columns)), list(columns))
        axes.set_yticks(np.arange(len(rows)), list(rows))
        _without_lines(axes)
        figure.colorbar(image, ax=axes, label=label)
        figure.suptitle(title, fontsize=10)
    return figure


# Keys say whether values lie below, and above, the range of colours.
_EXTEND = {
    (False, False): "neither",
    (True, False): "min",
    (False, True): "max",
    (True, True): "both",
}


def value_map(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    label: str,
    parity: float | None = None,
    ratio: bool = False,
    digits: int = 2,
) -> Figure:
    """Draws values by row and column, each written in its cell.

    With a parity value, colours diverge from parity, orange below and purple above,
    which readers with any colour vision can distinguish. Without, colours rise with the
    value.

    Args:
      values: ``[rows, columns]``; values that are not finite are hatched.
      rows: Names of the rows.
      columns: Names of the columns.
      title: Title of the figure.
      label: Label of the values.
      parity: The value at which colours diverge.
      ratio: Whether to colour ratios: twice and half the parity are equally far from
        parity.
      digits: Digits of the numbers.
    """
    shade = np.where(np.isfinite(values), values, np.nan)
    bounds: dict[str, Any] = {"cmap": "cividis"}
    beyond = (False, False)
    if parity is not None:
        # A rate of 0 has the same colour as a quarter of the parity.
        factors = shade / (parity or 1)
        beyond = bool((factors < 0.25).any()), bool((factors > 4).any())
        ratios = np.log2(np.clip(factors, 0.25, 4.0))
        shade = ratios if ratio else shade - parity
        reach = float(np.nanmax(np.abs(shade), initial=0)) or 1.0
        bounds = {"cmap": "PuOr", "vmin": -reach, "vmax": reach}
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(2.4 + 0.78 * len(columns), 1.9 + 0.3 * len(rows)),
            layout="constrained",
        )
        axes = figure.subplots()
        image = axes.imshow(np.ma.masked_invalid(shade), aspect="auto", **bounds)
        for (r, c), value in np.ndenumerate(values):
            if not np.isfinite(shade[r, c]):
                look: dict[str, Any] = {"hatch": "///", "edgecolor": "#999999"}
                axes.add_patch(
                    Rectangle((c - 0.5, r - 0.5), 1, 1, facecolor="white", **look)
                )
                continue
            # Adding 0 removes the sign of values that round to 0.
            text = f"{round(value, digits) + 0.0:.{digits}f}"
            _write(axes, image, (r, c), shade[r, c], text, fontsize=7.5)
        axes.set_xticks(np.arange(len(columns)), list(columns), fontsize=7)
        axes.set_yticks(np.arange(len(rows)), list(rows), fontsize=8)
        _without_lines(axes)
        # Arrows show that values exceed the range of colours.
        extend = _EXTEND[beyond] if ratio else "neither"
        bar = figure.colorbar(image, ax=axes, label=label, extend=extend)
        if ratio:
            ticks = [t for t in (-2, -1, 0, 1, 2) if abs(t) <= bounds["vmax"]]
            bar.set_ticks(ticks, labels=[f"{(parity or 1) * 2.0**t:g}" for t in ticks])
        figure.suptitle(title, fontsize=10)
    return figure


def _without_lines(axes: Axes) -> None:
    """Removes ticks, frame and grid."""
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(False)


def _write(
    axes: Axes,
    image: AxesImage,
    cell: tuple[int, ...],
    value: Any,
    text: str,
    **look: Any,
) -> None:
    """Writes into a cell in black or white, in contrast to the cell's colour."""
    colour = "black"
    if np.isfinite(value):
        colour = _ink(np.array(image.to_rgba(value))[:3])
    row, column = cell
    axes.text(column, row, text, ha="center", va="center", color=colour, **look)


def _ink(channels: np.ndarray) -> str:
    """Returns black or white, whichever has more contrast (WCAG 2.2, 1.4.3)."""
    linear = np.where(
        channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
    )
    # Contrasts with white and with black are equal at this luminance.
    return "black" if linear @ [0.2126, 0.7152, 0.0722] > 0.179 else "white"
