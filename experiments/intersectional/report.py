"""The intersectional experiment's parts of the report."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.intersectional import figures, findings, stability
from experiments.intersectional.learners import DESCRIBED
from experiments.intersectional.repair import in_words
from experiments.intersectional.results import NAMES, TABLE, Results, other_thresholds
from experiments.intersectional.tables import as_csv, as_markdown
from experiments.intersectional.verdicts import Claim
from experiments.reporting import wording
from experiments.reporting.report import Picture, System, comparison
from experiments.reporting.tables import Column
from fairjax.evaluation import MIN_SUPPORT, names


def _columns(results: Results) -> list[Column]:
    del results
    return [
        Column("F1", names.F1, interval=3, terminal=True),
        Column("Balanced acc.", "group_balanced_accuracy/mean"),
        Column("AUROC", "auroc", terminal=True),
        Column("Selected", "selection_rate"),
        Column("DI", f"{names.IMPACT}/mean", terminal=True),
        Column("SPD", f"{names.STATISTICAL_PARITY}/mean", interval=3, terminal=True),
        Column("EOD", f"{names.OPPORTUNITY}/mean", interval=3),
        Column("AOD", f"{names.AVERAGE_ODDS}/mean", interval=3, terminal=True),
        Column("Worst AOD", f"{names.AVERAGE_ODDS}/worst", terminal=True),
        Column("p (F1)", names.F1, "p"),
        Column("p (SPD)", f"{names.STATISTICAL_PARITY}/mean", "p"),
        Column("p (AOD)", f"{names.AVERAGE_ODDS}/mean", "p", terminal=True),
    ]


def _protocol(results: Results) -> dict[str, Any]:
    splits, options, budget = results.splits, results.options, results.budget
    found = results.subgroups
    error = options.objective.replace("_", " ")
    parity = options.constraint.replace("_", " ")
    whose = "the subgroup's" if options.thresholds == "group" else "the common"
    return {
        **wording.split(splits, options.seed),
        "subgroups": f"{', '.join(found.parts)} crossed; combinations with fewer than "
        f"{options.min_patients:,} rows, or {options.min_outcomes} of either outcome, "
        "are merged",
        "merged": {name: f"{rows:,}" for name, rows in found.merged.items()},
        "reference": f"{found.reference}: {found.stated}",
        "inputs": f"{splits.inputs.shape[-1]} columns, imputed and encoded on each "
        "split's training rows; race, sex and age are not among them",
        **wording.columns(splits),
        "before": f"disparate impact remover, repair level {options.repair_level:g}, "
        "by each subgroup's training rows; it needs a patient's subgroup to predict",
        **in_words(results.repair),
        "within": f"{DESCRIBED[options.learner]}; exponentiated gradient around it, "
        f"{parity} within .01, at most {options.iterations} iterations, least {error}; "
        "its decision is drawn, with the exact chance",
        **_missed(results),
        "networks": f"{budget.steps} AdamW steps of {budget.batch_size} patients; MLP "
        f"{'-'.join(map(str, budget.hidden))}; FairGrad by subgroup, limited, its "
        "setting chosen on the validation fold; positive-sum: the task's gradient, "
        "changed no more than it takes for no subgroup's loss to rise, to first order",
        "after": "equalized odds: on the validation fold's scores, thresholds drawn "
        "for each subgroup so that true and false positive rates are equal, of least "
        f"{error}; its AUROC is that of the chance of being selected",
        "threshold": f"elsewhere {whose} threshold of .10 to .89 with the largest F1 "
        "on the validation fold",
        "metrics": f"{', '.join(NAMES[name].lower() for name in TABLE)} of each "
        f"subgroup with {MIN_SUPPORT} patients of each outcome or more; the average "
        "odds difference is signed, so that opposite gaps cancel; expectations "
        "over decisions that are drawn, F1 a ratio of them; mean and worst over the "
        "subgroups, of the distance from parity or of the rate; null: mean of "
        f"{options.permutations} shuffles of the subgroup, within outcome but for "
        "disparate impact and statistical parity",
        "the_papers_protocol": f"{options.splits} random splits by patient, "
        "stratified by subgroup and outcome: 50 % train, 40 % test and make the rules "
        "of equalized odds, 10 % test these and make the thresholds; intervals over "
        "splits with Nadeau and Bengio's variance",
        **wording.inference(results, "the base model"),
    }


def _missed(results: Results) -> dict[str, Any]:
    """Describes how far the reduction missed its bound on training rows."""
    missed = [m for m in results.folds.missed.values() if not np.isnan(m).all()]
    if not missed:
        return {}
    beyond = np.maximum(np.concatenate(missed), 0)
    return {
        "bound_missed": f"by more than .001 on the training rows of "
        f"{int((beyond > 0.001).sum())} of {len(beyond)} fits, by {beyond.max():.3f} "
        "at most"
    }


def _extra(results: Results) -> dict[str, Any]:
    repair = results.repair
    return {
        "selected_settings": results.selected,
        **({} if repair is None else {"repair": dataclasses.asdict(repair)}),
        "claims": _claims(findings.found_claims(results)),
        "claims_under_other_thresholds": {
            "thresholds": (other := other_thresholds(results.options)),
            "claims": _claims(findings.found_claims(results, other)),
        },
    }


def _claims(found: Sequence[Claim]) -> list[dict[str, Any]]:
    return [
        {
            "claim": claim.text,
            "verdict": claim.verdict,
            "measured": claim.measured,
            "tests": {name: comparison(c) for name, c in claim.tests.items()},
            "more": list(claim.more),
        }
        for claim in found
    ]


def _files(results: Results) -> dict[str, str]:
    return {
        "subgroups.md": as_markdown(results),
        "subgroups.csv": as_csv(results),
        "folds.csv": stability.as_csv(results),
    }


SYSTEM = System(
    title="The three-stage pipeline",
    baseline="base",
    metrics=findings.tested,
    tests=findings.tests_against_base,
    columns=_columns,
    legend="Means over the subgroups: of F1 and balanced accuracy, and of the distance "
    "from parity with the reference in disparate impact (DI), statistical parity "
    "(SPD), equal opportunity (EOD) and average odds (AOD). DIR: disparate impact "
    "remover; EGR: exponentiated gradient reduction; EO: equalized odds. p: against "
    "the base model, paired, Holm-corrected over the configurations. Every subgroup's "
    "figures are in subgroups.md.",
    remark="These are not the paper's data, and no figure here reproduces one of its.",
    pictures=(
        Picture(
            "tradeoff", "F1 against the distance in average odds", figures.tradeoff
        ),
        Picture(
            "stability",
            "Average odds difference of each subgroup in every test fold",
            figures.stability,
        ),
        *(
            Picture(
                f"subgroups_{name}",
                f"{NAMES[name]} of each subgroup and configuration",
                figures.subgroup_map(name),
            )
            for name in TABLE
        ),
    ),
    answers=findings.answers,
    protocol=_protocol,
    extra=_extra,
    files=_files,
    audited=("base", "egr_eo"),
)
