"""The intersectional experiment's findings in words: claims, protocols, gradients."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.core.results import compare_to_baseline, main_methods
from experiments.intersectional.claims import BALANCE, DISPARITY, claims, with_summaries
from experiments.intersectional.protocols import protocols
from experiments.intersectional.results import (
    SAID,
    Results,
    other_thresholds,
    preliminary,
)
from experiments.intersectional.stability import spreads
from experiments.intersectional.stages import NETWORKS
from experiments.intersectional.tables import full_title, shown_levels
from experiments.intersectional.thresholds import thresholds
from experiments.intersectional.verdicts import (
    Claim,
    described,
    missing,
    sentences,
    shows,
)
from fairjax.evaluation import Comparison, Tests, compare, holm
from fairjax.evaluation.names import F1

BALANCED = "group_balanced_accuracy/mean"


def metrics(results: Results) -> tuple[str, ...]:
    """Lists all metrics, which are reported and tested against the base model."""
    return tuple(results.evaluations["base"].repeats)


def tests_against_base(results: Results) -> dict[str, dict[str, Comparison]]:
    """Compares configurations with the base model by metric, after Holm."""
    return compare_to_baseline(results, "base", metrics(results))


# Tests of single folds take seconds, and two files of a report contain them.
@functools.lru_cache(maxsize=2)
def found_claims(results: Results, setting: str = "") -> list[Claim]:
    """Returns the paper's five claims, under the chosen or a setting's thresholds."""
    return claims(
        results.evaluations, results.titles, results.folds.values, setting=setting
    )


def answers(results: Results, tests: Tests) -> list[str]:
    """Writes lines of Markdown."""
    del tests
    said = preliminary(results.options)
    lines = [f"**{said}**", ""] if said else []
    lines += [SAID["introduction"], ""]
    for number, claim in enumerate(found_claims(results), 1):
        lines += _answer(number, claim)
    other = other_thresholds(results.options)
    return [
        *lines,
        SAID["thresholds"],
        "",
        *thresholds(results, other, found_claims(results, other)),
        "",
        _beaten(results),
        "",
        SAID["protocols"],
        "",
        *protocols(results),
        "",
        SAID["unstable"].format(spreads=spreads(results)),
        "",
        SAID["gradients"],
        "",
        *_gradients(results),
    ]


def _answer(number: int, claim: Claim) -> list[str]:
    lines = [f"**{number}. {claim.text}** {claim.verdict.capitalize()}.", ""]
    run = claim.verdict != "not run"
    lines += [f"- Measured: {claim.measured}"] if run else [SAID["not_run"]]
    return [*lines, *(f"- {sentence}" for sentence in sentences(claim)), ""]


def everyone_selected(results: Results) -> float:
    """Computes the subgroups' mean F1 score if everyone is selected."""
    found = results.subgroups
    label = np.asarray(found.table.label)
    rates = [
        label[found.codes == found.levels.index(level)].mean()
        for level in shown_levels(results)
    ]
    return float(np.mean([2 * rate / (1 + rate) for rate in rates]))


def _beaten(results: Results) -> str:
    """Says which configurations are better than decisions that ignore the patient."""
    lows = {
        results.titles[name]: [
            results.evaluations[name].interval(metric)[0] for metric in (BALANCED, F1)
        ]
        for name in main_methods(results)
    }
    return beaten_in_words(everyone_selected(results), lows)


def beaten_in_words(floor: float, lows: Mapping[str, Sequence[float]]) -> str:
    """Writes the answer.

    Args:
      floor: The mean F1 score where everyone is selected.
      lows: Title of a configuration -> the lower ends of the intervals of the mean
        balanced accuracy and of the mean F1 score.
    """
    blind, below = (
        [title for title, ends in lows.items() if not ends[place] > level]
        for place, level in enumerate((0.5, floor))
    )
    return SAID["beaten"].format(
        blind=", ".join(blind) or "none", floor=floor, below=", ".join(below) or "none"
    )


def _gradients(results: Results) -> list[str]:
    """Compares each network with its base model, and with the reduction."""
    known = {name: with_summaries(e) for name, e in results.evaluations.items()}
    pairs = [
        (f"{before}{kind}{after}", f"{before}{base}{after}")
        for kind in NETWORKS[1:]
        for before in ("", "dir_")
        for after in ("", "_eo")
        for base in ("mlp", "egr")
    ]
    other = other_thresholds(results.options)
    pairs += [
        (f"{before}{kind}[{other}]", f"{before}{base}")
        for kind in NETWORKS[1:]
        for before in ("", "dir_")
        for base in (f"mlp[{other}]", "egr")
    ]
    pairs = [pair for pair in pairs if not missing(known, pair)]
    if not pairs:
        return [SAID["gradients.not_run"]]
    named = {title: full_title(results, title) for title in known}
    lines = [SAID["gradients.start"], ""]
    for metric in (DISPARITY, F1, BALANCE):
        found = holm({p: compare(known[p[0]], known[p[1]], metric) for p in pairs})
        shown = [
            f"{named[one]} less {named[base]} {described(c)}"
            for (one, base), c in found.items()
        ]
        lines += [f"- {_MEASURE[metric]} ({_count(list(found.values()))}):"]
        lines += [f"    - {line}" for line in shown]
    return lines


_MEASURE = {
    DISPARITY: "Disparity",
    F1: "Mean F1 score of the subgroups",
    BALANCE: "Balance",
}


def _count(found: Sequence[Comparison]) -> str:
    signs = [shows(c) for c in found]
    return SAID["counts"].format(
        pairs=len(signs), lower=signs.count(-1), higher=signs.count(1)
    )
