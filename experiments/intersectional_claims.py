"""The paper's five claims as tests, and whether each holds for these patients.

All are of the clean protocol, in which every configuration has the same patients. Two
numbers sum up a configuration: its *disparity*, the mean over the subgroups and over
statistical parity, equal opportunity and average odds of the distance from the
reference; and its *balance*, the mean F1 score of the subgroups less the disparity.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from experiments import markdown
from experiments.comparison import Comparison, Evaluation, compare, contrast, holm
from experiments.intersectional_groups import SUBGROUP
from experiments.intersectional_stages import PAPER
from experiments.level_measures import (
    AVERAGE_ODDS,
    IMPACT,
    OPPORTUNITY,
    STATISTICAL_PARITY,
)

Verdict = Literal[
    "holds", "holds in part", "does not hold", "not shown", "not tested", "not run"
]
DISPARITY, BALANCE = "disparity", "balance"
F1 = "group_f1_score/mean"
LEVEL = 0.05
DISTANCES = tuple(
    f"{name}/mean" for name in (IMPACT, STATISTICAL_PARITY, OPPORTUNITY, AVERAGE_ODDS)
)
_SINGLE = ("dir", "egr", "eo")
_MULTI = ("dir_egr", "egr_eo", "dir_eo", "dir_egr_eo")
_FULL, _BEST = "dir_egr_eo", "egr_eo"

Evaluations = Mapping[str, Evaluation]


class Claim(NamedTuple):
    """What the paper says, whether it holds, and the tests that say so.

    Attributes:
      text: In the paper's sense.
      measured: What was computed for it.
      verdict: See `Verdict`.
      tests: What was compared -> the comparison, after Holm over all of them.
      more: Sentences on what else was seen.
    """

    text: str
    measured: str
    verdict: Verdict
    tests: Mapping[str, Comparison]
    more: Sequence[str] = ()


def with_summaries(evaluation: Evaluation) -> Evaluation:
    """The evaluation with its disparity and its balance among the metrics."""

    def extended(kind: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        disparity = np.mean([kind[name] for name in DISTANCES[1:]], axis=0)
        return {**kind, DISPARITY: disparity, BALANCE: kind[F1] - disparity}

    return dataclasses.replace(
        evaluation,
        repeats=extended(evaluation.repeats),
        bootstrap=extended(evaluation.bootstrap),
    )


def claims(evaluations: Evaluations, titles: Mapping[str, str]) -> list[Claim]:
    """The five, in the paper's order.

    Args:
      evaluations: Name of a configuration -> its evaluation.
      titles: Name -> its name for readers.
    """
    known = {
        name: with_summaries(e) for name, e in evaluations.items() if name in PAPER
    }
    makers = (multi_stage, most_balanced, weak_alone, not_the_best, hidden_subgroup)
    return [make(known, titles) for make in makers]


def multi_stage(known: Evaluations, titles: Mapping[str, str]) -> Claim:
    """Whether several stages beat one."""
    del titles
    text = "Several stages together are fairer than any one of them."
    measured = (
        "the mean of the four configurations of several stages less that of the three "
        "of one, for each mean distance from parity"
    )
    if missing(known, (*_SINGLE, *_MULTI)):
        return Claim(text, measured, "not run", {})
    chosen = [known[name] for name in (*_MULTI, *_SINGLE)]
    shares = [1 / len(_MULTI)] * len(_MULTI) + [-1 / len(_SINGLE)] * len(_SINGLE)
    tests = holm({metric: contrast(chosen, shares, metric) for metric in DISTANCES})
    price, balance = (contrast(chosen, shares, metric) for metric in (F1, BALANCE))
    pairs = holm(
        {
            f"{several} less {one}": compare(known[several], known[one], DISPARITY)
            for several in _MULTI
            for one in _SINGLE
            if set(one.split("_")) <= set(several.split("_"))
        }
    )
    less = sum(c.difference < 0 for c in pairs.values())
    shown = sum(shows(c) < 0 for c in pairs.values())
    against = sum(shows(c) > 0 for c in pairs.values())
    more = (
        f"Of {len(pairs)} pairs of such a configuration and one of its own stages, it "
        f"has the smaller disparity in {less}, beyond noise in {shown}; the larger "
        f"beyond noise in {against} (Holm)."
    )
    paid = (
        f"The mean F1 score changes by {span(price)}, p {p_text(price)}, the balance "
        f"by {span(balance)}, p {p_text(balance)}."
    )
    verdict = judged(tests.values(), wanted=-1)
    return Claim(text, measured, verdict, tests, (more, paid))


def most_balanced(known: Evaluations, titles: Mapping[str, str]) -> Claim:
    """Whether EGR + EO is the most balanced of the eight."""
    text = "EGR + EO is the most balanced configuration."
    found = _of_balance(
        text, known, _BEST, titles, best="holds", beaten="does not hold"
    )
    if not found.tests:
        return found
    return found._replace(more=(_ranked(known, titles),))


def weak_alone(known: Evaluations, titles: Mapping[str, str]) -> Claim:
    """Whether EO does little where nothing went before it."""
    del titles
    text = "EO alone is weak: it works where something upstream was corrected."
    measured = (
        "what EO alone changes of the base model's mean distance in equal opportunity "
        "and in average odds; weak is what takes away less than half, by the whole "
        "interval"
    )
    if missing(known, ("base", "eo")):
        return Claim(text, measured, "not run", {})
    names = (f"{OPPORTUNITY}/mean", f"{AVERAGE_ODDS}/mean")
    base, alone = known["base"], known["eo"]
    tests = holm({name: compare(alone, base, name) for name in names})
    small = all(c.low > -base.mean(name) / 2 for name, c in tests.items())
    verdict: Verdict = "not shown"
    if untested(tests.values()):
        verdict = "not tested"
    elif small:
        verdict = "holds"
    elif any(shows(c) < 0 for c in tests.values()):
        verdict = "does not hold"
    more = []
    if not missing(known, ("egr", "egr_eo")):
        four = [known[name] for name in ("egr_eo", "egr", "eo", "base")]
        c = contrast(four, [1, -1, -1, 1], names[1])
        more.append(
            "What EO changes after EGR less what it changes alone, in average odds: "
            f"{span(c)}, p {p_text(c)}; below 0 it does more after EGR."
        )
    return Claim(text, measured, verdict, tests, more)


def not_the_best(known: Evaluations, titles: Mapping[str, str]) -> Claim:
    """Whether some configuration is better than all three stages together."""
    text = "The full pipeline is not the best."
    return _of_balance(text, known, _FULL, titles, best="does not hold", beaten="holds")


def hidden_subgroup(known: Evaluations, titles: Mapping[str, str]) -> Claim:
    """Whether a subgroup fares worse where the average fares better."""
    text = "A good average hides a subgroup that fares worse."
    measured = (
        "in each configuration with a smaller mean distance in average odds than the "
        "base model, the distance of each subgroup less that under the base model"
    )
    if missing(known, ("base",)) or len(known) < 2:
        return Claim(text, measured, "not run", {})
    mean, base = f"{AVERAGE_ODDS}/mean", known["base"]
    good = [n for n in known if n != "base" and known[n].mean(mean) < base.mean(mean)]
    groups = [m for m in base.repeats if m.startswith(f"{AVERAGE_ODDS}/{SUBGROUP}=")]
    before = distances(base, groups)
    found = {
        f"{titles[name]}, {metric.partition('=')[2]}": compare(
            distances(known[name], groups), before, metric
        )
        for name in good
        for metric in groups
        # The reference has no distance from itself.
        if known[name].repeats[metric].any() or base.repeats[metric].any()
    }
    if not found:
        more = ("No configuration has a smaller mean than the base model.",)
        return Claim(text, measured, "not shown", {}, more)
    adjusted = holm(found)
    grown = {key: c for key, c in adjusted.items() if c.difference > 0}
    verdict: Verdict = "not shown"
    if untested(adjusted.values()):
        verdict = "not tested"
    elif any(shows(c) > 0 for c in grown.values()):
        verdict = "holds"
    elif not grown:
        verdict = "does not hold"
    signs = [shows(c) for c in adjusted.values()]
    more = (
        f"Of {len(adjusted)} distances in {len(good)} such configurations "
        f"({', '.join(titles[n] for n in good)}), {len(grown)} are larger than under "
        f"the base model, {signs.count(1)} beyond noise (Holm), and {signs.count(-1)} "
        "smaller beyond it."
    )
    largest = sorted(grown, key=lambda key: -grown[key].difference)[:5]
    return Claim(text, measured, verdict, {k: grown[k] for k in largest}, (more,))


def distances(evaluation: Evaluation, names: Sequence[str]) -> Evaluation:
    """The evaluation of signed differences without their signs."""
    return dataclasses.replace(
        evaluation,
        repeats={name: np.abs(evaluation.repeats[name]) for name in names},
        bootstrap={name: np.abs(evaluation.bootstrap[name]) for name in names},
    )


def missing(known: Evaluations, names: Iterable[str]) -> list[str]:
    """The configurations that were not run."""
    return [name for name in names if name not in known]


def untested(found: Iterable[Comparison]) -> bool:
    """Whether none has a p-value, as of a single repeat."""
    return all(math.isnan(c.p_holm) for c in found)


def shows(c: Comparison) -> int:
    """The sign of a difference beyond noise, after Holm; 0 of one within it.

    Example:
      >>> shows(Comparison(-0.1, -0.2, 0.0, 0.01, 0.04))
      -1
      >>> shows(Comparison(-0.1, -0.3, 0.1, 0.2, 0.4))
      0
    """
    if not c.p_holm < LEVEL:
        return 0
    return 1 if c.difference > 0 else -1


def judged(found: Iterable[Comparison], *, wanted: int) -> Verdict:
    """The verdict of several tests of one claim.

    Args:
      found: After Holm.
      wanted: The sign that speaks for the claim.
    """
    found = list(found)
    if untested(found):
        return "not tested"
    signs = {shows(c) for c in found}
    if wanted in signs:
        return "holds in part" if -wanted in signs else "holds"
    return "does not hold" if -wanted in signs else "not shown"


def p_text(c: Comparison) -> str:
    """The p-value after Holm, or before where there was no correction."""
    return markdown.p_value(c.p if math.isnan(c.p_holm) else c.p_holm)


def span(c: Comparison) -> str:
    """The difference and its interval."""
    if math.isnan(c.difference):
        return "not defined"
    return f"{c.difference:+.4f} [{c.low:+.4f}, {c.high:+.4f}]"


def _of_balance(
    text: str,
    known: Evaluations,
    name: str,
    titles: Mapping[str, str],
    *,
    best: Verdict,
    beaten: Verdict,
) -> Claim:
    """A claim about one configuration's balance against that of each other.

    Args:
      text: The claim.
      known: All evaluations.
      name: Of the configuration.
      titles: Names for readers.
      best: The verdict where it is above all others beyond noise.
      beaten: Where another is above it beyond noise.
    """
    measured = "its balance less that of each other"
    others = [other for other in known if other != name]
    if missing(known, (name,)) or not others:
        return Claim(text, measured, "not run", {})
    tests = holm(
        {titles[other]: compare(known[name], known[other], BALANCE) for other in others}
    )
    signs = [shows(c) for c in tests.values()]
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
    return f"By balance: {shown}."
