"""FairGrad's parts of the report: columns, figures, protocol."""

from typing import Any

from matplotlib.figure import Figure

from experiments.core import methods
from experiments.core.results import families, main_evaluations
from experiments.fairgrad import findings
from experiments.fairgrad.results import Results
from experiments.reporting import figures, training_figures, wording
from experiments.reporting.report import Picture, System, comparison
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
    splits, options, budget = results.splits, results.options, results.budget
    return {
        **wording.split(splits, options.seed),
        "inputs": f"{splits.inputs.shape[-1]} columns, imputed and encoded on each "
        "lane's training rows",
        **wording.columns(splits),
        "budget": f"{budget.steps} AdamW steps of {budget.batch_size} patients for "
        f"every method; MLP {'-'.join(map(str, budget.hidden))}, learning rate "
        f"{budget.learning_rate:g} on a cosine, weight decay {budget.weight_decay:g}; "
        "the last step is evaluated",
        **_left_out(results),
        "threshold": "the score that selects the prevalence on the lane's validation "
        "fold",
        "selection": "in each lane, on its validation fold alone: the smallest soft "
        f"equalized-odds gap among settings that lose at most {options.tolerance:g} "
        "AUROC there",
        **wording.equalized_odds(results),
        **wording.worst_group(),
        **wording.inference(results, "ERM"),
    }


def _left_out(results: Results) -> dict[str, str]:
    """Lists the methods that were not run, if there are any."""
    run = results.options.methods
    names = [title for name, title in methods.TITLES.items() if name not in run]
    if not names:
        return {}
    return {"not_run": f"{'; '.join(names)}. --methods runs some, --full all"}


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
    legend="Gap: equalized-odds difference, the larger of the TPR and FPR gaps; "
    "attribute columns are raw. Where a method has several settings, validation chose "
    "one in each fold. p: against ERM, paired, Holm-corrected over the methods (but "
    "for the two reference models).",
    remark="These are not the papers' data, and no figure here reproduces one of "
    "theirs.",
    pictures=(
        Picture("tradeoff", "AUROC against mean equalized-odds difference", _tradeoff),
        Picture(
            "gaps", "Each attribute's gap, its interval and its noise floor", _gaps
        ),
        Picture("training", "Conflicts during training", _training),
    ),
    answers=findings.answers,
    protocol=_protocol,
    extra=_extra,
    audited=("erm", findings.HEADLINE),
)
