"""Figures of training."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairjax.audit.figures import COLOURS, LINES, STYLE


def conflicts(
    histories: Mapping[str, Mapping[str, Any]], attributes: Sequence[str], *, title: str
) -> Figure:
    """Draws the rate of conflicts, and the task's cosines with attributes, by step.

    Args:
      histories: Method -> ``conflict_share [steps]`` and ``cosines [steps, K, K]``,
        with the task first.
      attributes: The other objectives, in order.
      title: Title of the figure.
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
        panels[0].set_title("fraction of pairs in conflict", fontsize=8)
        panels[0].set_ylim(0, 1)
        panels[0].set_xlabel("step")
        panels[0].legend()
        figure.suptitle(title, fontsize=10)
    return figure


def learning_curves(
    curves: Mapping[str, Mapping[str, np.ndarray]],
    steps: np.ndarray,
    *,
    title: str,
    label: str = "validation AUROC",
) -> Figure:
    """Draws how modalities learn, a panel per method: median, quartiles over seeds.

    Args:
      curves: Method -> modality -> ``[seeds, points]``; the modalities of all methods
        are in one order, so that each modality has one colour.
      steps: ``[points]``, the training steps of the points.
      title: Title of the figure.
      label: Label of the measured values.
    """
    names = list(dict.fromkeys(name for given in curves.values() for name in given))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 2.5 * len(curves), 3.4), layout="constrained")
        panels = figure.subplots(
            1, len(curves), sharex=True, sharey=True, squeeze=False
        )
        panels = panels[0]
        for axes, (method, given) in zip(panels, curves.items(), strict=True):
            for name, values in given.items():
                _band(axes, steps, values, name, names.index(name))
            axes.set_title(method)
            axes.set_xlabel("training step")
        panels[0].set_ylabel(f"{label}, median and quartiles")
        _shared_legend(figure, title, len(names))
    return figure


def over_training(
    curves: Mapping[str, np.ndarray], steps: np.ndarray, *, title: str, label: str
) -> Figure:
    """Draws one number over training, a line per method: median, quartiles over seeds.

    Args:
      curves: Method -> ``[seeds, points]``.
      steps: ``[points]``, the training steps of the points.
      title: Title of the figure.
      label: Label of the measured values.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.0, 3.8), layout="constrained")
        axes = figure.subplots()
        for number, (name, values) in enumerate(curves.items()):
            _band(axes, steps, values, name, number)
        axes.set_xlabel("training step")
        axes.set_ylabel(f"{label}, median and quartiles")
        _shared_legend(figure, title, 3)
    return figure


def _band(
    axes: Axes, steps: np.ndarray, values: np.ndarray, name: str, number: int
) -> None:
    """Draws a median with its quartiles over the first axis."""
    lower, middle, upper = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
    colour = COLOURS[number % len(COLOURS)]
    line = LINES[number % len(LINES)]
    axes.fill_between(steps, lower, upper, color=colour, alpha=0.2, linewidth=0)
    axes.plot(steps, middle, color=colour, linestyle=line, label=name)


def _shared_legend(figure: Figure, title: str, columns: int) -> None:
    """Adds a title, and a legend with each name once below all panels."""
    handles = {}
    for axes in figure.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    figure.suptitle(title, fontsize=10)
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=columns
    )


def _smooth(values: np.ndarray, width: int = 10) -> np.ndarray:
    """Computes a moving average over up to ``width`` steps back."""
    total = np.cumsum(np.concatenate([np.zeros(1), values]))
    stop = np.arange(1, len(values) + 1)
    begin = np.maximum(stop - width, 0)
    return (total[stop] - total[begin]) / (stop - begin)
