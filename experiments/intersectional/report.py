"""The intersectional experiment's parts of the report."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.intersectional import figures, findings, stability
from experiments.intersectional.learners import DESCRIBED
from experiments.intersectional.repair import in_words
from experiments.intersectional.results import (
    NAMES,
    SAID,
    TABLE,
    Results,
    other_thresholds,
)
from experiments.intersectional.tables import as_csv, as_markdown
from experiments.intersectional.verdicts import Claim
from experiments.reporting import wording
from experiments.reporting.report import System, comparison
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
    options, found = results.options, results.subgroups
    given = {
        "merged": {name: f"{rows:,}" for name, rows in found.merged.items()},
        **in_words(results.repair),
        **_missed(results),
    }
    return wording.protocol(
        SAID,
        results,
        "the base model",
        given,
        found=found,
        parts=", ".join(found.parts),
        learner=DESCRIBED[options.learner],
        parity=options.constraint.replace("_", " "),
        error=options.objective.replace("_", " "),
        whose=SAID[f"kinds.{options.thresholds}"],
        metrics=", ".join(NAMES[name] for name in TABLE),
        least=MIN_SUPPORT,
    )


def _missed(results: Results) -> dict[str, str]:
    """Describes how far the reduction missed its bound on training rows."""
    missed = [m for m in results.folds.missed.values() if not np.isnan(m).all()]
    if not missed:
        return {}
    beyond = np.maximum(np.concatenate(missed), 0)
    return {
        "bound_missed": SAID["bound_missed"].format(
            missed=int((beyond > 0.001).sum()), fits=len(beyond), most=beyond.max()
        )
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
    metrics=findings.metrics,
    tests=findings.tests_against_base,
    columns=_columns,
    said=SAID
    | {
        f"picture.subgroups_{name}": f"{title} of each subgroup and configuration"
        for name, title in NAMES.items()
    },
    pictures={
        "tradeoff": figures.tradeoff,
        "stability": figures.stability,
        **{f"subgroups_{name}": figures.subgroup_map(name) for name in TABLE},
    },
    answers=findings.answers,
    protocol=_protocol,
    extra=_extra,
    files=_files,
    audited=("base", "egr_eo"),
)
