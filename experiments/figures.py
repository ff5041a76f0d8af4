"""Figures of an experiment, each as PNG and SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from experiments.evaluation import GAP, Evaluation
from experiments.files import write_whole
from fairjax.audit.figures import COLOURS, MARKERS, STYLE


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write ``name.png`` and ``name.svg``, the same bytes for the same figure."""
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        path = folder / f"{name}.{suffix}"
        with mpl.rc_context(STYLE):
            write_whole(
                path, lambda p, m=metadata: figure.savefig(p, dpi=150, metadata=m)
            )


def tradeoff(
    curves: Mapping[str, Sequence[tuple[str, Evaluation]]],
    points: Mapping[str, Evaluation],
    *,
    title: str,
) -> Figure:
    """AUROC against the mean equalized-odds difference.

    Args:
      curves: Family -> its settings, drawn joined up and labelled.
      points: Methods with one setting.
      title: Of the figure.
    """
    gap = f"{GAP}/mean"
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.8), layout="constrained")
        axes = figure.subplots()
        for number, (family, settings) in enumerate(curves.items()):
            x = [e.mean(gap) for _, e in settings]
            y = [e.mean("auroc") for _, e in settings]
            axes.plot(
                x,
                y,
                color=COLOURS[number],
                marker=MARKERS[number],
                markersize=4,
                label=family,
            )
            for (setting, _), a, b in zip(settings, x, y, strict=True):
                axes.annotate(
                    setting,
                    (a, b),
                    xytext=(3, 3),
                    textcoords="offset points",
                    fontsize=6.5,
                    color=COLOURS[number],
                )
        for number, (name, evaluation) in enumerate(points.items()):
            # As many shapes, then the same ones filled, so that no two look alike.
            marker = MARKERS[number % len(MARKERS)]
            filled = name == "ERM" or number >= len(MARKERS)
            colour = "#000000" if name == "ERM" else "#777777"
            axes.plot(
                evaluation.mean(gap),
                evaluation.mean("auroc"),
                marker,
                color=colour,
                markerfacecolor=colour if filled else "white",
                markersize=7 if name == "ERM" else 5,
                label=name,
            )
        axes.set_xlabel("mean equalized-odds difference over attributes (raw)")
        axes.set_ylabel("AUROC")
        axes.set_title(title)
        figure.legend(loc="outside right upper")
    return figure


def gaps(
    evaluations: Mapping[str, Evaluation], attributes: Sequence[str], *, title: str
) -> Figure:
    """Each attribute's gap with its interval, beside its noise floor."""
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(2.2 + 1.7 * len(attributes), 4.4), layout="constrained"
        )
        panels = figure.subplots(1, len(attributes), sharey=True, squeeze=False)[0]
        rows = np.arange(len(evaluations))[::-1]
        for axes, attribute in zip(panels, attributes, strict=True):
            metric = f"{GAP}/{attribute}"
            means = np.array([e.mean(metric) for e in evaluations.values()])
            reach = np.hstack([_reach(e, metric) for e in evaluations.values()])
            axes.errorbar(
                means, rows, xerr=reach, fmt="o", color=COLOURS[0], markersize=4
            )
            axes.plot(
                [e.corrected[attribute] for e in evaluations.values()],
                rows,
                "D",
                color=COLOURS[1],
                markerfacecolor="white",
                markersize=4,
            )
            floor = np.mean([e.null[attribute] for e in evaluations.values()])
            axes.axvspan(0, floor, color="#999999", alpha=0.25, linewidth=0)
            axes.set_title(attribute)
            axes.set_xlabel("equalized-odds difference", fontsize=8)
            axes.set_xlim(left=0)
            axes.set_yticks(rows, list(evaluations))
        panels[0].plot([], [], "o-", color=COLOURS[0], label="raw, 95 % interval")
        panels[0].plot(
            [],
            [],
            "D",
            color=COLOURS[1],
            markerfacecolor="white",
            label="bias-corrected",
        )
        panels[0].axvspan(0, 0, color="#999999", alpha=0.25, label="noise floor")
        figure.suptitle(title, fontsize=10)
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def training(
    histories: Mapping[str, Mapping[str, Any]], attributes: Sequence[str], *, title: str
) -> Figure:
    """Conflict share, and cosines of the task with each attribute, over the steps.

    Args:
      histories: Method -> ``conflict_share [steps]`` and ``cosines [steps, K, K]``,
        with the task first.
      attributes: The other objectives, in order.
      title: Of the figure.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 3.6), layout="constrained")
        panels = figure.subplots(1, 1 + len(histories), sharex=True, squeeze=False)[0]
        for number, (name, history) in enumerate(histories.items()):
            smooth = _smooth(np.asarray(history["conflict_share"]))
            panels[0].plot(smooth, color=COLOURS[number], label=name)
            axes = panels[1 + number]
            for other, attribute in enumerate(attributes):
                cosine = _smooth(np.asarray(history["cosines"])[:, 0, 1 + other])
                axes.plot(cosine, color=COLOURS[other], label=attribute)
            axes.axhline(0, color="#000000", linewidth=0.6)
            axes.set_title(f"{name}: cosine with the task", fontsize=8)
            axes.set_ylim(-1, 1)
            axes.set_xlabel("step")
            axes.legend(ncols=2)
        panels[0].set_title("share of pairs in conflict", fontsize=8)
        panels[0].set_ylim(0, 1)
        panels[0].set_xlabel("step")
        panels[0].legend()
        figure.suptitle(title, fontsize=10)
    return figure


def _reach(evaluation: Evaluation, metric: str) -> np.ndarray:
    """Distances ``[2, 1]`` from the mean down and up to the interval's ends."""
    mean, (low, high) = evaluation.mean(metric), evaluation.interval(metric)
    return np.maximum(np.array([[mean - low], [high - mean]]), 0.0)


def _smooth(values: np.ndarray, width: int = 10) -> np.ndarray:
    """Moving average over up to ``width`` steps back."""
    total = np.cumsum(np.concatenate([np.zeros(1), values]))
    stop = np.arange(1, len(values) + 1)
    begin = np.maximum(stop - width, 0)
    return (total[stop] - total[begin]) / (stop - begin)
