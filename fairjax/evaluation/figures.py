"""Figures of evaluations."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fairjax._extra import extra
from fairjax.evaluation.comparison import Evaluation

with extra("audit", needed_by="a figure"):
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from fairjax.audit.figures import COLOURS, STYLE

_HOLLOW: Any = {"color": COLOURS[1], "markerfacecolor": "white"}
_BAND: Any = {"color": "#999999", "alpha": 0.25}


def gaps(
    evaluations: Mapping[str, Evaluation],
    panels: Mapping[str, str],
    *,
    title: str,
    label: str,
) -> Figure:
    """Draws gaps with intervals, and noise floors where defined.

    Args:
      evaluations: Method -> its evaluation, one row each.
      panels: Heading of a panel -> the gap's full name.
      title: Title of the figure.
      label: Label of the horizontal axes.

    Example:
      >>> values = {"auroc": np.array([0.8, 0.9])}
      >>> figure = gaps(
      ...     {"mine": Evaluation(values, values)}, {"AUROC": "auroc"}, title="",
      ...     label="value")
      >>> figure.axes[0].get_title()
      'AUROC'
    """
    corrected = any(
        np.isfinite(e.corrected.get(metric, np.nan))
        for e in evaluations.values()
        for metric in panels.values()
    )
    floors = {
        metric: np.mean([e.null[metric] for e in evaluations.values()])
        for metric in panels.values()
        if all(metric in e.null for e in evaluations.values())
    }
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.2 + 1.7 * len(panels), 4.4), layout="constrained")
        row_of_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        rows = np.arange(len(evaluations))[::-1]
        for axes, (heading, metric) in zip(row_of_axes, panels.items(), strict=True):
            means = np.array([e.mean(metric) for e in evaluations.values()])
            reach = np.hstack([_reach(e, metric) for e in evaluations.values()])
            axes.errorbar(
                means, rows, xerr=reach, fmt="o", color=COLOURS[0], markersize=4
            )
            if corrected:
                less = [e.corrected.get(metric, np.nan) for e in evaluations.values()]
                axes.plot(less, rows, "D", markersize=4, **_HOLLOW)
            if metric in floors:
                axes.axvspan(0, floors[metric], linewidth=0, **_BAND)
                axes.set_xlim(left=0)
            axes.set_title(heading)
            axes.set_xlabel(label, fontsize=8)
            axes.set_yticks(rows, list(evaluations))
        first = row_of_axes[0]
        first.plot([], [], "o-", color=COLOURS[0], label="raw, 95 % interval")
        if corrected:
            first.plot([], [], "D", label="bias-corrected", **_HOLLOW)
        if floors:
            first.axvspan(0, 0, label="noise floor", **_BAND)
        figure.suptitle(title, fontsize=10)
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def _reach(evaluation: Evaluation, metric: str) -> np.ndarray:
    """Returns distances ``[2, 1]`` from the mean down and up to the interval's ends."""
    mean, (low, high) = evaluation.mean(metric), evaluation.interval(metric)
    return np.maximum(np.array([[mean - low], [high - mean]]), 0.0)
