"""Figures of the intersectional experiment."""

import textwrap
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.core.results import main_methods
from experiments.intersectional.findings import everyone_selected
from experiments.intersectional.results import NAMES, Results
from experiments.intersectional.stages import (
    CONFIGURATIONS,
    IN_TITLES,
    PAPER,
    Configuration,
)
from experiments.intersectional.tables import full_name, full_title, shown_levels
from experiments.reporting import figures
from fairjax.audit.figures import COLOURS, STYLE
from fairjax.evaluation import BY_LEVEL
from fairjax.evaluation.names import AVERAGE_ODDS, F1, IMPACT

_ODDS = f"{AVERAGE_ODDS}/mean"
_WITHIN = {"base": "base model", **IN_TITLES}
_COLOURS = dict(zip(_WITHIN, COLOURS, strict=False))
# Shapes by whether DIR comes before and EO after.
_SHAPES = {
    (False, False): ("o", "neither"),
    (True, False): ("s", "DIR"),
    (False, True): ("^", "EO"),
    (True, True): ("D", "DIR and EO"),
}


def subgroup_map(metric: str) -> Callable[[Results], Figure]:
    """Draws a metric of every subgroup and configuration."""

    def draw(results: Results) -> Figure:
        levels, found = shown_levels(results), results.evaluations
        names = [full_name(metric, level) for level in levels]
        rows = sorted(found, key=lambda row: bool(results.predictions[row].setting))
        values = np.array([[found[row].mean(name) for name in names] for row in rows])
        known = BY_LEVEL.get(metric)
        return figures.value_map(
            values,
            [full_title(results, name) for name in rows],
            [textwrap.fill(level, 9) for level in levels],
            title=f"{results.title}\nReference: {results.subgroups.reference}",
            label=NAMES[metric],
            parity=None if known is None else known.parity,
            ratio=metric == IMPACT,
        )

    return draw


def tradeoff(results: Results) -> Figure:
    """Draws F1 against the distance in average odds: all, and a panel with EO only."""
    names = list(results.evaluations)
    close = [n for n in names if _configuration(results, n).equalized]
    panels = [names, close] if 0 < len(close) < len(names) else [names]
    floor = everyone_selected(results)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.4 + 4.6 * len(panels), 5.0), layout="constrained")
        for axes, shown in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            for name in shown:
                _point(axes, results, name)
            axes.axhline(floor, color="#777777", linestyle="--", linewidth=1)
            if shown is not names:
                axes.set_title("with EO, close up", fontsize=9)
        figure.supxlabel(
            "mean distance of the subgroups in average odds, 95 % interval", fontsize=9
        )
        figure.supylabel("mean F1 score of the subgroups, 95 % interval", fontsize=9)
        figure.suptitle(results.title, fontsize=10)
        figure.legend(handles=_legend(results), loc="outside right upper")
    return figure


def _configuration(results: Results, title: str) -> Configuration:
    return CONFIGURATIONS[results.predictions[title].name]


def _point(axes: Axes, results: Results, name: str) -> None:
    configuration = _configuration(results, name)
    evaluation = results.evaluations[name]
    marker, _ = _SHAPES[configuration.repaired, configuration.equalized]
    middle = {metric: evaluation.mean(metric) for metric in (_ODDS, F1)}
    ends = {
        metric: np.abs(np.array(evaluation.interval(metric))[:, None] - value)
        for metric, value in middle.items()
    }
    colour = _COLOURS[configuration.within]
    axes.errorbar(
        middle[_ODDS],
        middle[F1],
        xerr=ends[_ODDS],
        yerr=ends[F1],
        fmt=marker,
        color=colour,
        markersize=6,
        # Hollow markers for the other kind of threshold.
        markerfacecolor="white" if results.predictions[name].setting else colour,
        elinewidth=0.6,
        alpha=0.9,
    )


def _legend(results: Results) -> list[Line2D]:
    def mark(marker: str, colour: str, label: str, **more: Any) -> Line2D:
        more |= {"marker": marker, "linestyle": "", "color": colour, "label": label}
        return Line2D([], [], **more)

    run = {CONFIGURATIONS[name].within for name in main_methods(results)}
    settings = sorted({p.setting for p in results.predictions.values()} - {""})
    return [
        *(mark("o", _COLOURS[w], words) for w, words in _WITHIN.items() if w in run),
        *(mark(shape, "#444444", words) for shape, words in _SHAPES.values()),
        *(
            mark("o", "#444444", f"{setting} threshold", markerfacecolor="white")
            for setting in settings
        ),
        Line2D([], [], color="#777777", linestyle="--", label="everyone selected"),
    ]


def stability(results: Results) -> Figure | None:
    """Draws average odds differences of each subgroup in every test fold."""
    shown = [name for name in PAPER if name in results.folds.values]
    levels = [v for v in shown_levels(results) if v != results.subgroups.reference]
    places = np.arange(len(levels))[::-1]
    across = min(4, len(shown))
    down = -(-len(shown) // across)
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(2.2 + 2.2 * across, 1.2 + (0.8 + 0.22 * len(levels)) * down),
            layout="constrained",
        )
        panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for axes in panels.flat[len(shown) :]:
            axes.set_visible(False)
        for axes, name in zip(panels.flat, shown, strict=False):
            axes.axvline(0, color="#999999", linewidth=0.8)
            for place, level in zip(places, levels, strict=True):
                values = results.folds.values[name][full_name(AVERAGE_ODDS, level)]
                values = values[np.isfinite(values)]
                if not len(values):
                    continue
                axes.plot(
                    values,
                    np.full(len(values), place),
                    "|",
                    color=COLOURS[0],
                    markersize=6,
                    alpha=0.6,
                )
                low, high = np.quantile(values, [0.25, 0.75])
                axes.plot([low, high], [place, place], color=COLOURS[1], linewidth=3)
                axes.plot(np.median(values), place, "o", color="black", markersize=3)
            axes.set_title(results.titles[name], fontsize=9)
            axes.set_yticks(places, levels, fontsize=7)
        reference, kind = results.subgroups.reference, results.options.thresholds
        figure.suptitle(
            f"{results.title}\nReference: {reference}; {kind} thresholds", fontsize=10
        )
        figure.supxlabel(
            "average odds difference in each test fold; middle half and median",
            fontsize=9,
        )
    return figure
