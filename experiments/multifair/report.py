"""MultiFair's parts of the report: columns, figures, protocol."""

import textwrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.core.results import families, main_evaluations
from experiments.datasets.modalities import Series
from experiments.datasets.multimodal import MultimodalTable
from experiments.datasets.simulated_modalities import Truth
from experiments.multifair import findings
from experiments.multifair.levels import effects, grid
from experiments.multifair.names import CORNERS, REFERENCE, TITLES, TUNED
from experiments.multifair.results import SAID, Results
from experiments.multifair.task import MultimodalTask
from experiments.reporting import figures, training_figures, wording
from experiments.reporting.report import System, comparison
from experiments.reporting.tables import Column
from fairjax.evaluation import compare
from fairjax.evaluation.figures import gaps
from fairjax.evaluation.names import AUROC_GAP, EQUITY, GAP, PARITY

_SWITCHES = ((0, 0), (1, 0), (0, 1), (1, 1))
_SWITCHED = ("neither", "direction", "magnitude", "both")


def system(data: MultimodalTable, task: MultimodalTask, truth: Truth | None) -> System:
    """Makes MultiFair's report on some patients, whose distribution may be known."""
    return System(
        title="MultiFair",
        baseline="joint",
        metrics=findings.tested,
        tests=findings.tests_against_joint,
        columns=_columns,
        said=SAID | {"remark": _remark(data)},
        pictures={
            "tradeoff": _tradeoff,
            "gaps": _gaps,
            "modalities": lambda results: _learning_curves(results, task.names),
            "gap_over_training": _over_training,
            "levels_multifair": lambda results: _heat_map(results, "multifair"),
            "levels_dual_level": lambda results: _heat_map(results, "dual_level"),
        },
        answers=lambda results, tests: findings.answers(
            results, tests, task.names, truth
        ),
        protocol=lambda results: _protocol(results, data, task),
        extra=_extra,
        audited=("joint", "multifair", "dual_level"),
    )


def _remark(data: MultimodalTable) -> str:
    number, weighted = int(data.table.label.sum()), ""
    if not np.all(data.weights == 1):
        weighted = SAID["weighted"].format(fraction=number / len(data.table.label))
    return SAID["remark"].format(number=number, weighted=weighted)


def _columns(_: Results) -> list[Column]:
    equity = f"{EQUITY}/mean"
    return [
        Column("AUROC", "auroc", digits=4, interval=3, terminal=True),
        Column("ES-AUROC", equity, digits=4, interval=3, terminal=True),
        Column("AUROC gap", f"{AUROC_GAP}/mean", interval=3, terminal=True),
        Column("DPD", f"{PARITY}/mean", interval=3),
        Column("DEOdds", f"{GAP}/mean", interval=3, terminal=True),
        Column("Brier", "brier", digits=4),
        Column("p (AUROC)", "auroc", "p"),
        Column("p (ES-AUROC)", equity, "p"),
        Column("p (AUROC gap)", f"{AUROC_GAP}/mean", "p"),
        Column("p (DEOdds)", f"{GAP}/mean", "p"),
    ]


def _title(results: Results) -> str:
    return textwrap.fill(results.title, 48)


def _tradeoff(results: Results) -> Figure:
    return figures.tradeoff(
        families(results, TUNED),
        main_evaluations(results, but=TUNED),
        title=_title(results),
        x=figures.Axis(f"{AUROC_GAP}/mean", "AUROC gap, mean over attributes"),
        y=figures.Axis("auroc", "AUROC"),
        baseline=TITLES["joint"],
        # Methods of one modality, and models that are not networks, lie far off.
        near={title for name, title in TITLES.items() if name != REFERENCE},
    )


def _gaps(results: Results) -> Figure:
    panels = {
        f"{name}: {short}": f"{metric}/{name}"
        for metric, short in ((AUROC_GAP, "AUROC gap"), (GAP, "DEOdds"))
        for name in results.splits.attributes
    }
    return gaps(main_evaluations(results), panels, title=_title(results), label="gap")


def _steps(results: Results, values: np.ndarray) -> np.ndarray:
    """Returns the training steps of values ``[seeds, points]`` of monitored models."""
    number = values.shape[1]
    return np.arange(1, number + 1) * results.budget.steps // number


def _learning_curves(results: Results, modalities: tuple[str, ...]) -> Figure:
    curves = {
        title: {
            **{m: h["unimodal_auroc"][0, ..., i].T for i, m in enumerate(modalities)},
            "fused": h["fused_auroc"][0].T,
        }
        for title, h in findings.watched(results).items()
    }
    some = next(iter(curves.values()))["fused"]
    return training_figures.learning_curves(
        curves, _steps(results, some), title=_title(results)
    )


def _over_training(results: Results) -> Figure:
    curves = {
        title: history["auroc_gap"][0].T
        for title, history in findings.watched(results).items()
    }
    return training_figures.over_training(
        curves,
        _steps(results, next(iter(curves.values()))),
        title=_title(results),
        label="validation AUROC gap",
    )


def _heat_map(results: Results, name: str) -> Figure | None:
    cells = grid(results, name)
    if cells is None:
        return None
    base, metric = cells[0, 0, 0, 0], f"{EQUITY}/mean"
    found = [
        [compare(cells[r + c], base, metric) for c in _SWITCHES] for r in _SWITCHES
    ]
    parts = np.array([[(c.difference, c.low, c.high) for c in row] for row in found])
    difference, low, high = np.moveaxis(parts, -1, 0)
    nothing, everything, _ = CORNERS[name]
    return figures.heat_map(
        difference,
        low,
        high,
        [f"modality: {word}" for word in _SWITCHED],
        [f"group: {word}" for word in _SWITCHED],
        title=f"{TITLES[everything]}: equity-scaled AUROC, "
        f"less that of {TITLES[nothing].lower()}",
        label="difference",
        digits=4,
    )


def _extra(results: Results) -> dict[str, Any]:
    return {
        "selected_settings": results.selected,
        "levels": {
            name: {
                metric: {effect: comparison(c) for effect, c in found.items()}
                for metric, found in effects(results, name).items()
            }
            for name in CORNERS
        },
        "released_less_paper": {
            metric: comparison(c)
            for metric, c in findings.release_tests(results).items()
        },
    }


def _protocol(
    results: Results, data: MultimodalTable, task: MultimodalTask
) -> dict[str, Any]:
    described = []
    for place, name in enumerate(data.names):
        text = f"present in {data.present[:, place].mean():.0%}"
        content = data.modalities.get(name)
        if isinstance(content, Series):
            filled = f"{content.mask.mean():.0%} filled"
            text += f", of {content.mask.shape[1]} slots {filled}"
        described.append(f"{name} ({text})")
    given = {
        "modalities": described,
        "measurements_left_out": dict(data.left_out),
        "groups_in_training": [n.replace(", ", " and ") for n in task.group_names],
    }
    return wording.protocol(SAID, results, "joint training", given)
