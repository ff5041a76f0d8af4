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
from experiments.multifair.names import CORNERS, REFERENCE, TITLES, TUNED, WATCHED
from experiments.multifair.results import Results
from experiments.multifair.task import MultimodalTask
from experiments.reporting import figures, training_figures, wording
from experiments.reporting.report import Picture, System, comparison
from experiments.reporting.tables import Column
from fairjax.evaluation import compare
from fairjax.evaluation.figures import gaps
from fairjax.evaluation.names import AUROC_GAP, EQUITY, GAP, PARITY

_SWITCHES = ((0, 0), (1, 0), (0, 1), (1, 1))
_SWITCHED = ("neither", "direction", "magnitude", "both")


def system(data: MultimodalTable, task: MultimodalTask, truth: Truth | None) -> System:
    """Makes MultiFair's report on some patients, whose distribution may be known."""

    def curves(results: Results) -> Figure:
        return _learning_curves(results, task.names)

    def protocol(results: Results) -> dict[str, Any]:
        return _protocol(results, data, task)

    return System(
        title="MultiFair",
        baseline="joint",
        metrics=findings.tested,
        tests=findings.tests_against_joint,
        columns=_columns,
        legend="ES: equity-scaled. AUROC gap: largest less smallest AUROC of an "
        "attribute's groups. DEOdds: equalized-odds difference; DPD: "
        "demographic-parity difference. All four are means over the attributes. "
        "Where a method has several settings, validation chose one in each fold. p: "
        "against joint training, paired, Holm-corrected over the methods (but for the "
        "logistic regression and the best by the law, which are no candidates).",
        remark=_remark(data),
        pictures=(
            Picture(
                "tradeoff", "AUROC against the mean AUROC gap of groups", _tradeoff
            ),
            Picture(
                "gaps", "Gaps of each attribute, with intervals and noise floors", _gaps
            ),
            Picture(
                "modalities", "How well each modality predicts over training", curves
            ),
            Picture("gap_over_training", "The AUROC gap over training", _over_training),
            Picture(
                "levels_multifair",
                "What each of MultiFair's levels contributes",
                lambda results: _heat_map(results, "multifair"),
            ),
            Picture(
                "levels_dual_level",
                "What each level of the reconciliation contributes",
                lambda results: _heat_map(results, "dual_level"),
            ),
        ),
        answers=lambda results, tests: findings.answers(
            results, tests, task.names, truth
        ),
        protocol=protocol,
        extra=_extra,
        audited=("joint", "multifair", "dual_level"),
    )


def _remark(data: MultimodalTable) -> str:
    number = int(data.table.label.sum())
    text = f"{number:,} of them have the outcome"
    if not np.all(data.weights == 1):
        share = number / len(data.table.label)
        text += f", {share:.1%}; the percentage above weights them for censoring"
    return (
        f"{text}. These are not the paper's data, and no figure here reproduces one "
        "of its."
    )


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


def _points(results: Results, number: int) -> np.ndarray:
    """Returns the training steps at which the models were monitored."""
    return np.arange(1, number + 1) * results.budget.steps // number


def _learning_curves(results: Results, modalities: tuple[str, ...]) -> Figure:
    curves = {}
    for name in WATCHED:
        if name in results.histories:
            seen = results.histories[name]
            alone = {
                modality: seen["unimodal_auroc"][0, :, :, m].T
                for m, modality in enumerate(modalities)
            }
            curves[TITLES[name]] = alone | {"fused": seen["fused_auroc"][0].T}
    number = next(iter(next(iter(curves.values())).values())).shape[1]
    return training_figures.learning_curves(
        curves, _points(results, number), title=_title(results)
    )


def _over_training(results: Results) -> Figure:
    curves = {
        TITLES[name]: results.histories[name]["auroc_gap"][0].T
        for name in WATCHED
        if name in results.histories
    }
    number = next(iter(curves.values())).shape[1]
    return training_figures.over_training(
        curves,
        _points(results, number),
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
    splits, options, budget = results.splits, results.options, results.budget
    described = []
    for place, name in enumerate(data.names):
        text = f"{name}, present in {data.present[:, place].mean():.0%}"
        content = data.modalities.get(name)
        if isinstance(content, Series):
            text += (
                f", of {content.mask.shape[1]} slots {content.mask.mean():.0%} filled"
            )
        described.append(text)
    return {
        **wording.split(splits, options.seed),
        "seeds": f"{splits.num_lanes} models of each method, one a fold and repeat; a "
        "metric is of a repeat's pooled test folds, so that it has "
        f"{splits.num_repeats} values",
        "modalities": described,
        "measurements_left_out": dict(data.left_out),
        "groups_in_training": [n.replace(", ", " and ") for n in task.group_names],
        **wording.columns(splits),
        "budget": f"{budget.steps} AdamW steps of {budget.batch_size} patients for "
        f"every method; transformers of width {budget.width}, depth {budget.depth} "
        f"and {budget.num_heads} heads for series, text and the fusion of modalities, "
        f"MLPs of {'-'.join(map(str, budget.hidden))} for tables; "
        f"learning rate {budget.learning_rate:g} on a cosine, weight decay "
        f"{budget.weight_decay:g}, updates clipped at .8; the last step is evaluated",
        "threshold": "the score that selects the prevalence on the lane's validation "
        "fold (the published code decides at .5, which selects few where the outcome "
        "is rare)",
        "selection": "in each lane, on its validation fold alone: the smallest soft "
        f"equalized-odds gap among settings that lose at most {options.tolerance:g} "
        "AUROC there, and where all lose more the one that loses least; of OGM-GE the "
        "best AUROC. Other methods have one setting, the published one where there is "
        "one",
        "readings": "the paper's method is mode='paper' of fairjax.modulation: its "
        "terms made to work where the released code leaves them without effect, with "
        "readings of our own that docs/multifair.md lists",
        "modulation": "the batch AUCs that modulation reads are not weighted; losses, "
        "and the gradients that the direction term compares, are. MultiFair's settings "
        "are the released code's for FairVision",
        **wording.equalized_odds(results),
        **wording.group_rankings(results),
        **wording.weights(results),
        "pooling": "a repeat's scores are of five models, one a fold, so that an AUROC "
        "also counts how alike their scales are",
        **wording.inference(results, "joint training"),
        "tests_of_levels": "contrasts of a grid's cells, tested alike; in the "
        "reconciliation's grid nothing switched on is joint training with unimodal "
        "losses. Holm over a grid's effects and metrics together; the released code "
        "less the paper's, Holm over the metrics; the logistic regression and the best "
        "by law are no candidates and not corrected",
    }
