"""FairGrad's parts of the report: columns, figures, protocol."""

from typing import Any

from matplotlib.figure import Figure

from experiments.core import methods
from experiments.core.results import families, main_evaluations
from experiments.fairgrad import findings
from experiments.fairgrad.results import SAID, Results
from experiments.reporting import figures, training_figures, wording
from experiments.reporting.report import System, comparison
from experiments.reporting.tables import Column
from fairjax.evaluation.figures import gaps
from fairjax.evaluation.names import GAP


def _columns(results: Results) -> list[Column]:
    mean, worst = f"{GAP}/mean", f"{GAP}/worst"
    return [
        Column("AUROC", "auroc", digits=4, interval=3, terminal=True),
        Column("Bal. acc.", "balanced_accuracy", digits=4),
        Column("Brier", "brier", digits=4),
        *(Column(name, f"{GAP}/{name}") for name in results.splits.attributes),
        Column("Mean gap", mean, digits=4, interval=3, terminal=True),
        Column("corrected", mean, "corrected", digits=4, terminal=True),
        Column("Worst gap", worst),
        Column("Worst-group AUROC", "worst_group_auroc"),
        Column("p (AUROC)", "auroc", "p"),
        Column("p (mean gap)", mean, "p", terminal=True),
    ]


def _tradeoff(results: Results) -> Figure:
    return figures.tradeoff(
        families(results, findings.FAMILIES),
        main_evaluations(results, but=findings.FAMILIES),
        title=results.title,
        x=figures.Axis(
            f"{GAP}/mean", "mean equalized-odds difference over attributes (raw)"
        ),
        y=figures.Axis("auroc", "AUROC"),
        baseline=results.titles["erm"],
    )


def _gaps(results: Results) -> Figure:
    panels = {name: f"{GAP}/{name}" for name in results.splits.attributes}
    return gaps(
        main_evaluations(results),
        panels,
        title=results.title,
        label="equalized-odds difference",
    )


def _training(results: Results) -> Figure | None:
    histories = {}
    for name in ("fairgrad", findings.HEADLINE):
        if name in results.histories:
            history = results.histories[name]
            middle = len(history["conflict_share"]) // 2
            histories[results.titles[name]] = {k: v[middle] for k, v in history.items()}
    if not histories:
        return None
    return training_figures.conflicts(
        histories, results.splits.attributes, title=results.title
    )


def _protocol(results: Results) -> dict[str, Any]:
    run = results.options.methods
    left_out = [title for name, title in methods.TITLES.items() if name not in run]
    given = {}
    if left_out:
        given["not_run"] = SAID["not_run"].format(names="; ".join(left_out))
    return wording.protocol(SAID, results, "ERM", given)


def _extra(results: Results) -> dict[str, Any]:
    return {
        "selected_settings": results.selected,
        "fronts": {
            f"{one} - {other}": comparison(c)
            for (one, other), c in findings.front_tests(results).items()
        },
        "cross_effects": {
            name: {
                f"{target} on {measured}": comparison(c)
                for (target, measured), c in found.items()
            }
            for name, found in findings.cross_effects(results).items()
        },
    }


SYSTEM = System(
    title="FairGrad",
    baseline="erm",
    metrics=findings.tested,
    tests=findings.tests_against_erm,
    columns=_columns,
    said=SAID,
    pictures={"tradeoff": _tradeoff, "gaps": _gaps, "training": _training},
    answers=findings.answers,
    protocol=_protocol,
    extra=_extra,
    audited=("erm", findings.HEADLINE),
)
