"""The paper's five claims as tests, and whether each holds for these patients.

All tests use the clean protocol, in which every configuration has the same patients.
Two numbers sum up a configuration. The *disparity* is the mean distance from the
reference, over the subgroups and over statistical parity, equal opportunity and average
odds. The *balance* is the mean F1 score of the subgroups less the disparity.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from experiments.intersectional import verdicts
from experiments.intersectional.results import NAMES, PARITY_METRICS, SAID
from experiments.intersectional.stability import unstable_subgroup
from experiments.intersectional.stages import PAPER
from experiments.intersectional.verdicts import Claim, Evaluations, Verdict
from experiments.reporting.differences import untested
from fairjax.evaluation import Comparison, Evaluation, compare, contrast, holm
from fairjax.evaluation.names import AVERAGE_ODDS, F1, OPPORTUNITY

DISPARITY, BALANCE = "disparity", "balance"
DISTANCES = tuple(f"{name}/mean" for name in PARITY_METRICS)
_SINGLE = ("dir", "egr", "eo")
_MULTI = ("dir_egr", "egr_eo", "dir_eo", "dir_egr_eo")
_FULL, _BEST = "dir_egr_eo", "egr_eo"


def with_summaries(evaluation: Evaluation) -> Evaluation:
    """Adds disparity and balance to the metrics of an evaluation."""

    def extended(kind: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        disparity = np.mean([kind[name] for name in DISTANCES[1:]], axis=0)
        return {**kind, DISPARITY: disparity, BALANCE: kind[F1] - disparity}

    return dataclasses.replace(
        evaluation,
        repeats=extended(evaluation.repeats),
        bootstrap=extended(evaluation.bootstrap),
    )


def claims(
    evaluations: Evaluations,
    titles: Mapping[str, str],
    folds: Mapping[str, Mapping[str, np.ndarray]],
    *,
    setting: str = "",
) -> list[Claim]:
    """Tests the five claims, in the paper's order.

    Args:
      evaluations: Name of a configuration -> its evaluation.
      titles: Name -> its name for readers.
      folds: Name of a configuration -> metric -> values in single test folds.
      setting: Kind of thresholds of the configurations with thresholds.
    """
    chosen = {
        name: f"{name}[{setting}]" if f"{name}[{setting}]" in evaluations else name
        for name in PAPER
    }
    known = {
        name: with_summaries(evaluations[title])
        for name, title in chosen.items()
        if name in evaluations
    }
    own = {name: folds[title] for name, title in chosen.items() if title in folds}
    found = [
        make(known, titles)
        for make in (multi_stage, most_balanced, weak_alone, not_the_best)
    ]
    return [*found, unstable_subgroup(known, own, titles)]


def multi_stage(known: Evaluations, titles: Mapping[str, str]) -> Claim:
    """Tests whether several stages beat each of their single stages."""
    text, measured = SAID["stages.text"], SAID["stages.measured"]
    if verdicts.missing(known, (*_SINGLE, *_MULTI)):
        return Claim(text, measured, "not run", {})
    tests = holm(
        {
            f"{titles[several]} less {titles[one]}": compare(
                known[several], known[one], DISPARITY
            )
            for several in _MULTI
            for one in _SINGLE
            if set(one.split("_")) <= set(several.split("_"))
        }
    )
    signs = [verdicts.shows(c) for c in tests.values()]
    pairs = SAID["stages.pairs"].format(
        pairs=len(tests),
        less=sum(c.difference < 0 for c in tests.values()),
        lower=signs.count(-1),
        higher=signs.count(1),
    )
    verdict = verdicts.of_all(tests.values(), wanted=-1)
    return Claim(text, measured, verdict, tests, (pairs, *_on_average(known)))


def _on_average(known: Evaluations) -> tuple[str, str]:
    """Compares the mean of several stages with single stages; not a test of the claim.

    The comparison is favourable if one stage has a large effect, even if the other
    stages add nothing.
    """
    chosen = [known[name] for name in (*_MULTI, *_SINGLE)]
    each = [1 / len(_MULTI)] * len(_MULTI) + [-1 / len(_SINGLE)] * len(_SINGLE)
    apart, paid = (
        holm({metric: contrast(chosen, each, metric) for metric in metrics})
        for metrics in (DISTANCES, (F1, BALANCE))
    )
    listed = "; ".join(
        f"{NAMES[metric.partition('/')[0]].lower()} {verdicts.described(c)}"
        for metric, c in apart.items()
    )
    distances = SAID["stages.average"].format(
        several=len(_MULTI), single=len(_SINGLE), listed=listed, tests=len(apart)
    )
    f1, balance = (verdicts.described(paid[metric]) for metric in (F1, BALANCE))
    price = SAID["stages.price"].format(f1=f1, balance=balance, tests=len(paid))
    return distances, price


def most_balanced(known: Evaluations, titles: Mapping[str, str]) -> Claim:
    """Tests whether EGR + EO is the most balanced of the eight."""
    text = SAID["balanced.text"]
    found = _of_balance(
        text, known, _BEST, titles, best="holds", beaten="does not hold"
    )
    if not found.tests:
        return found
    return found._replace(more=(_ranked(known, titles),))


def weak_alone(known: Evaluations, titles: Mapping[str, str]) -> Claim:
    """Tests whether EO does little alone, and more after EGR: a claim of two parts.

    EO alone is weak if it leaves significantly more than half of the base model's mean
    distance in equal opportunity and in average odds; this part is refuted if EO
    leaves less than half in one of them. EO works after EGR if it changes the mean
    distance in average odds by more after EGR than alone; this part is refuted if it
    changes the distance by less. Half of the base model's distance is subtracted in
    every repeat and resample, so that the test includes the noise of that distance.
    """
    text, measured = SAID["weak.text"], SAID["weak.measured"]
    if verdicts.missing(known, ("base", "eo")):
        return Claim(text, measured, "not run", {})
    base, alone = known["base"], known["eo"]
    halves = {
        f"{NAMES[name]}: {titles['eo']} less half of {titles['base']}": contrast(
            [alone, base], [1, -0.5], f"{name}/mean"
        )
        for name in (OPPORTUNITY, AVERAGE_ODDS)
    }
    grown: dict[str, Comparison] = {}
    if not verdicts.missing(known, ("egr", "egr_eo")):
        four = [known[name] for name in ("egr_eo", "egr", "eo", "base")]
        name = f"{NAMES[AVERAGE_ODDS]}: EO's change after EGR less that alone"
        grown[name] = contrast(four, [1, -1, -1, 1], f"{AVERAGE_ODDS}/mean")
    tests = holm({**halves, **grown})
    more = _left_by_noise(base, alone, titles)
    if not grown:
        more.append(SAID["weak.not_run"])
    verdict: Verdict = "not tested"
    if not untested(tests.values()):
        signs = {verdicts.shows(tests[name]) for name in halves}
        weak = -1 if -1 in signs else int(signs == {1})
        upstream = -sum(verdicts.shows(tests[name]) for name in grown)
        verdict = verdicts.of_two_parts(weak, upstream)
    return Claim(text, measured, verdict, tests, more)


def _left_by_noise(
    base: Evaluation, alone: Evaluation, titles: Mapping[str, str]
) -> list[str]:
    """Says how large the distances would be without any difference, if known."""
    floors = [
        f"{NAMES[name].lower()} {base.null[f'{name}/mean']:.4f} under {titles['base']} "
        f"and {alone.null[f'{name}/mean']:.4f} under {titles['eo']}"
        for name in (OPPORTUNITY, AVERAGE_ODDS)
        if f"{name}/mean" in base.null and f"{name}/mean" in alone.null
    ]
    return [SAID["weak.floors"].format(floors="; ".join(floors))] if floors else []


def not_the_best(known: Evaluations, titles: Mapping[str, str]) -> Claim:
    """Tests whether some configuration is better than all three stages together."""
    text = SAID["best.text"]
    return _of_balance(text, known, _FULL, titles, best="does not hold", beaten="holds")


def _of_balance(
    text: str,
    known: Evaluations,
    name: str,
    titles: Mapping[str, str],
    *,
    best: Verdict,
    beaten: Verdict,
) -> Claim:
    """Tests a claim about one configuration's balance against each other's balance.

    The claim is about all eight configurations, and not run if one is missing.

    Args:
      text: The claim.
      known: All evaluations.
      name: Name of the configuration.
      titles: Names for readers.
      best: The verdict if the configuration is above all others beyond noise.
      beaten: The verdict if another configuration is above it beyond noise.
    """
    measured = SAID["balance.measured"].format(best=best, beaten=beaten)
    if verdicts.missing(known, PAPER):
        return Claim(text, measured, "not run", {})
    others = [other for other in known if other != name]
    tests = holm(
        {titles[other]: compare(known[name], known[other], BALANCE) for other in others}
    )
    signs = [verdicts.shows(c) for c in tests.values()]
    verdict: Verdict = "not shown"
    if untested(tests.values()):
        verdict = "not tested"
    elif -1 in signs:
        verdict = beaten
    elif set(signs) == {1}:
        verdict = best
    return Claim(text, measured, verdict, tests)


def _ranked(known: Evaluations, titles: Mapping[str, str]) -> str:
    order = sorted(known, key=lambda name: -known[name].mean(BALANCE))
    shown = ", ".join(f"{titles[n]} {known[n].mean(BALANCE):.3f}" for n in order)
    return SAID["balance.ranked"].format(shown=shown)
