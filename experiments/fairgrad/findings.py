"""The FairGrad experiment's tests, and its answers in words."""

import math

from experiments.core import references
from experiments.core.results import compare_to_baseline, family, main_methods
from experiments.fairgrad.results import SAID, Results
from experiments.reporting import markdown
from experiments.reporting.differences import clear, p_text, span, with_p
from experiments.reporting.wording import NOT_RUN
from fairjax.evaluation import Comparison, Tests, compare, compare_fronts, holm
from fairjax.evaluation.names import GAP, gap_metrics

HEADLINE = "fairgrad_limited"
FAMILIES = ("penalty", "penalty_absolute", "fairgrad_balanced", "fairgrad_limited")
PLAIN = ("auroc", "balanced_accuracy", "brier", "worst_group_auroc")
AUROC_ALLOWANCE = 0.005


def tested(results: Results) -> tuple[str, ...]:
    """Lists the metrics that are reported, and tested against ERM."""
    return (*PLAIN, *gap_metrics(results.splits.attributes))


def tests_against_erm(results: Results) -> dict[str, dict[str, Comparison]]:
    """Compares methods with ERM, by metric and method, with Holm's correction.

    The reference models are not candidates for fairness, so they are compared with ERM
    without correction.
    """
    return compare_to_baseline(results, "erm", tested(results), references.ALL)


def front_tests(results: Results) -> dict[tuple[str, str], Comparison]:
    """Compares areas under fronts: FairGrad's methods less penalty methods."""
    erm = results.evaluations["erm"]
    corner = (erm.mean("auroc") - 0.03, erm.mean(f"{GAP}/mean"))
    fronts = {name: [e for _, e in family(results, name)] for name in FAMILIES}
    found = {
        (one, other): compare_fronts([*fronts[one], erm], [*fronts[other], erm], corner)
        for one in ("fairgrad_balanced", "fairgrad_limited")
        for other in ("penalty", "penalty_absolute")
        if fronts[one] and fronts[other]
    }
    return holm(found)


def cross_effects(results: Results) -> dict[str, dict[tuple[str, str], Comparison]]:
    """Computes how fixing one attribute changes each gap, with Holm over all pairs."""
    erm = results.evaluations["erm"]
    found = {}
    for name in ("penalty_single", "fairgrad_single"):
        pairs = {
            (target, measured): compare(evaluation, erm, f"{GAP}/{measured}")
            for target, evaluation in family(results, name)
            for measured in results.splits.attributes
        }
        if pairs:
            found[name] = holm(pairs)
    return found


def answers(results: Results, tests: Tests) -> list[str]:
    return [
        _erm_answer(results),
        "",
        SAID["improves"],
        "",
        *(
            _improvement(results, tests, title)
            for title in main_methods(results)
            if title.startswith("fairgrad") and not title.endswith("_single")
        ),
        "",
        f"{SAID['cross']} {_cross_answer(results, tests)}",
        "",
        SAID["penalty"],
        "",
        *_penalty_answer(results),
    ]


def _erm_answer(results: Results) -> str:
    erm = results.evaluations["erm"]
    best = max(references.ALL, key=lambda n: results.evaluations[n].mean("auroc"))
    gap = compare(results.evaluations[best], erm, "auroc")
    matches = "matches" if gap.low <= 0 else "does not match"
    reference, _ = references.ALL[best]
    return SAID["erm"].format(reference=reference, c=gap, matches=matches)


def _improvement(results: Results, tests: Tests, title: str) -> str:
    erm, e = results.evaluations["erm"], results.evaluations[title]
    mean = f"{GAP}/mean"
    auroc, gap = tests["auroc"][title], tests[mean][title]
    better = gap.difference < 0 and clear(gap)
    if math.isnan(gap.p_holm):
        verdict = "not tested, because tests need two repeats"
    elif better and auroc.difference >= -AUROC_ALLOWANCE:
        verdict = "yes"
    else:
        verdict = "fairer, but at a cost in AUROC" if better else "not shown"
    return SAID["improvement"].format(
        title=results.titles[title],
        verdict=verdict,
        gap=with_p(gap),
        raw=_removed(e.mean(mean), erm.mean(mean)),
        corrected=_removed(e.corrected[mean], erm.corrected[mean]),
        auroc=with_p(auroc),
    )


def _removed(gap: float, before: float) -> str:
    # The corrected gap of a fair ERM is 0, and cannot shrink.
    if not before:
        return "none (ERM's gap is 0)"
    removed = 1 - gap / before
    return "an unknown fraction" if math.isnan(removed) else f"{removed:.0%}"


def _cross_answer(results: Results, tests: Tests) -> str:
    attributes = results.splits.attributes
    if len(attributes) == 1:
        return "There is only one attribute."
    sentences = []
    for name, found in cross_effects(results).items():
        others = {k: c for k, c in found.items() if k[0] != k[1]}
        worse = [c for c in others.values() if c.difference > 0]
        largest = max(others, key=lambda k: others[k].difference)
        fixed, grew = (markdown.escape(attribute) for attribute in largest)
        sentences.append(
            SAID["single"].format(
                title=results.titles[f"{name}[{largest[0]}]"],
                worse=len(worse),
                others=len(others),
                shown=sum(map(clear, worse)),
                grew=grew,
                fixed=fixed,
                c=with_p(others[largest]),
            )
        )
    if HEADLINE in results.evaluations:
        at_once = {a: tests[f"{GAP}/{a}"][HEADLINE] for a in attributes}
        grown = ", ".join(
            f"{markdown.escape(a)} {c.difference:+.4f} (p {p_text(c)})"
            for a, c in at_once.items()
            if c.difference > 0
        )
        title = results.titles[HEADLINE]
        sentences.append(SAID["at_once"].format(title=title, grown=grown or "none"))
    return " ".join(sentences) or NOT_RUN


def _penalty_answer(results: Results) -> list[str]:
    titles, lines = results.titles, []
    for (one, other), c in front_tests(results).items():
        verdict = "no difference is shown"
        if clear(c):
            better = one if c.difference > 0 else other
            verdict = f"the front of {titles[better]} is better"
        names = {"one": titles[one], "other": titles[other]}
        c_text = with_p(c, ".2e")
        lines.append(SAID["front"].format(**names, c=c_text, verdict=verdict))
    if HEADLINE in results.evaluations and "penalty" in results.evaluations:
        one, other = results.evaluations[HEADLINE], results.evaluations["penalty"]
        lines.append(
            SAID["chosen"].format(
                one=titles[HEADLINE],
                other=titles["penalty"],
                gap=span(compare(one, other, f"{GAP}/mean")),
                auroc=span(compare(one, other, "auroc")),
            )
        )
    return lines or [NOT_RUN]
