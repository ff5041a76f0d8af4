"""The FairGrad experiment's tests, and its answers in words."""

import math

from experiments.core import references
from experiments.core.results import compare_to_baseline, family, main_methods
from experiments.fairgrad.results import Results
from experiments.reporting import markdown
from experiments.reporting.differences import clear, p_text, span
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
    lines = ["**Is ERM a fair opponent?** " + _erm_answer(results), ""]
    lines += ["**Does FairGrad improve equalized odds at competitive AUROC?**", ""]
    lines += [
        f"- {results.titles[title]}: {_improvement(results, tests, title)}"
        for title in main_methods(results)
        if title.startswith("fairgrad") and not title.endswith("_single")
    ]
    lines += [
        "",
        "**Does fixing one attribute worsen another, and does reconciliation prevent "
        "it?** " + _cross_answer(results, tests),
        "",
        "**Where does a tuned penalty do as well?**",
        "",
        *_penalty_answer(results),
    ]
    return lines


def _erm_answer(results: Results) -> str:
    erm = results.evaluations["erm"]
    best = max(references.ALL, key=lambda n: results.evaluations[n].mean("auroc"))
    gap = compare(results.evaluations[best], erm, "auroc")
    inside = gap.low <= 0
    return (
        f"The better reference, {references.ALL[best][0]}, differs from it by "
        f"{gap.difference:+.4f} AUROC [{gap.low:+.4f}, {gap.high:+.4f}]: ERM "
        + ("matches it." if inside else "does not match it.")
    )


def _improvement(results: Results, tests: Tests, title: str) -> str:
    erm, e = results.evaluations["erm"], results.evaluations[title]
    auroc, gap = tests["auroc"][title], tests[f"{GAP}/mean"][title]
    raw = _share_gone(e.mean(f"{GAP}/mean"), erm.mean(f"{GAP}/mean"))
    corrected = _share_gone(e.corrected[f"{GAP}/mean"], erm.corrected[f"{GAP}/mean"])
    better = gap.difference < 0 and clear(gap)
    kept = auroc.difference >= -AUROC_ALLOWANCE
    verdict = (
        "yes" if better and kept else "fairer, at a price" if better else "not shown"
    )
    if math.isnan(gap.p_holm):
        verdict = "not tested, for want of repeats"
    return (
        f"{verdict}. Mean gap {span(gap)}, "
        f"p {p_text(gap)}: {raw} of the raw gap are gone, {corrected} of the "
        f"corrected one. AUROC {span(auroc)}, "
        f"p {p_text(auroc)}."
    )


def _share_gone(gap: float, before: float) -> str:
    # The corrected gap of a fair ERM is 0, and cannot shrink.
    if not before:
        return "none (ERM's is 0)"
    share = 1 - gap / before
    return "an unknown share" if math.isnan(share) else f"{share:.0%}"


def _cross_answer(results: Results, tests: Tests) -> str:
    sentences = []
    for name, found in cross_effects(results).items():
        others = {k: c for k, c in found.items() if k[0] != k[1]}
        if not others:
            continue
        worse = [k for k, c in others.items() if c.difference > 0]
        shown = [k for k in worse if clear(others[k])]
        largest = max(others, key=lambda k: others[k].difference)
        c = others[largest]
        fixed, grew = (markdown.escape(attribute) for attribute in largest)
        sentences.append(
            f"{results.titles[f'{name}[{largest[0]}]']} at a time: "
            f"{len(worse)} of {len(others)} other gaps grew, {len(shown)} beyond noise "
            f"(Holm); the largest growth is {grew} when {fixed} is fixed, "
            f"{span(c)}, p {p_text(c)}."
        )
    if HEADLINE in results.evaluations:
        at_once = {a: tests[f"{GAP}/{a}"][HEADLINE] for a in results.splits.attributes}
        grown = ", ".join(
            f"{markdown.escape(a)} {c.difference:+.4f} (p {p_text(c)})"
            for a, c in at_once.items()
            if c.difference > 0
        )
        sentences.append(
            "Reconciling all attributes at once "
            f"({results.titles[HEADLINE]}), the gaps that grew are: {grown or 'none'}."
        )
    if len(results.splits.attributes) == 1:
        return "There is one attribute only."
    return " ".join(sentences) or "The methods that show it were not run."


def _penalty_answer(results: Results) -> list[str]:
    lines = []
    for (one, other), c in front_tests(results).items():
        verdict = "no difference is shown"
        if clear(c):
            verdict = (
                "its front is better" if c.difference > 0 else "its front is worse"
            )
        lines.append(
            f"- {results.titles[one]}, against {results.titles[other]}: area dominated "
            f"(AUROC × gap) {span(c, '.2e')}, p {p_text(c)}: "
            f"{verdict}."
        )
    if HEADLINE in results.evaluations and "penalty" in results.evaluations:
        one, other = results.evaluations[HEADLINE], results.evaluations["penalty"]
        gap = compare(one, other, f"{GAP}/mean")
        auroc = compare(one, other, "auroc")
        lines.append(
            f"- With settings chosen by validation, {results.titles[HEADLINE]} less "
            f"{results.titles['penalty']}: mean gap {span(gap)}, AUROC {span(auroc)}."
        )
    return lines or ["The methods that show it were not run."]
