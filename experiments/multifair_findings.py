"""What the MultiFair experiment finds: its tests, and its answers in words."""

import math
from collections.abc import Sequence

import numpy as np

from experiments import markdown, tables
from experiments.cohort import crossed_name
from experiments.comparison import (
    Comparison,
    Evaluation,
    Tests,
    compare,
    contrast,
    holm,
)
from experiments.datasets.simulated_modalities import GROUPS, Truth
from experiments.measures import (
    AUROC_GAP,
    EQUITY,
    GAP,
    GROUP_AUROC,
    PARITY,
    full_names,
)
from experiments.multifair_names import (
    CORNERS,
    GRID,
    REFERENCE,
    TITLES,
    digits,
    unimodal,
)
from experiments.multifair_results import Results
from experiments.results import compare_to_baseline, main_methods

METRICS = ("auroc", "brier", EQUITY, AUROC_GAP, PARITY, GAP, GROUP_AUROC)
LEVEL = 0.05
# What is on, of (modality direction, modality magnitude, group direction, group
# magnitude).
_LEVELS = {"modality": (0, 1), "group": (2, 3)}


HEADLINE = {
    "auroc": "AUROC",
    f"{EQUITY}/mean": "equity-scaled AUROC",
    f"{AUROC_GAP}/mean": "AUROC gap",
    f"{GAP}/mean": "equalized-odds difference",
    f"{PARITY}/mean": "demographic-parity difference",
}
"""The metrics that the answers are about, and what they are called there."""


# The best scores, where the law is known that patients were drawn from.
BEST = "best_possible"
# No candidates: compared with joint training on their own, not with the others.
_REFERENCES = (REFERENCE, BEST)
# Where more is better; of the others less is.
_MORE_IS_BETTER = ("auroc", EQUITY)


def tested(results: Results) -> list[str]:
    """The metrics of the summary, all compared with joint training."""
    attributes = results.splits.attributes
    groups = (*attributes, crossed_name(attributes))
    names = ["auroc", "brier"]
    for metric in (EQUITY, AUROC_GAP, PARITY, GAP):
        names += full_names(metric, tuple(dict.fromkeys(groups)))
    some = next(iter(results.evaluations.values()))
    return names + [m for m in some.repeats if m.startswith(f"{GROUP_AUROC}/")]


def tests_against_joint(results: Results) -> Tests:
    """Metric -> method -> difference from joint training, Holm over the methods."""
    return compare_to_baseline(results, "joint", tested(results), _REFERENCES)


def grid(results: Results, name: str) -> dict[tuple[int, ...], Evaluation] | None:
    """A grid's evaluations by what is switched on, or None where it was not run."""
    nothing, everything, rest = CORNERS[name]
    found = {}
    for setting in GRID:
        title = f"{rest}[{digits(setting)}]"
        if not any(setting):
            title = nothing
        elif all(setting):
            title = everything
        if title not in results.evaluations:
            return None
        found[setting] = results.evaluations[title]
    return found


def effects(results: Results, name: str) -> dict[str, dict[str, Comparison]]:
    """Metric -> effect -> how much it changes the metric; Holm over a grid's effects.

    A level's effect: both of its factors on, less both off, averaged over what the
    other level does. Together: how much more both levels do than their effects alone
    add up to.
    """
    cells = grid(results, name)
    if cells is None:
        return {}
    weights = {level: np.zeros(len(GRID)) for level in _LEVELS}
    for place, setting in enumerate(GRID):
        for level, factors in _LEVELS.items():
            own = {setting[f] for f in factors}
            if len(own) == 1:
                weights[level][place] = 1 if own == {1} else -1
    weights = {level: w / np.sum(w > 0) for level, w in weights.items()}
    together = np.zeros(len(GRID))
    for setting, sign in (
        ((1, 1, 1, 1), 1),
        ((1, 1, 0, 0), -1),
        ((0, 0, 1, 1), -1),
        ((0, 0, 0, 0), 1),
    ):
        together[GRID.index(setting)] = sign
    weights["together"] = together
    order = [cells[setting] for setting in GRID]
    found = {
        (metric, effect): contrast(order, list(coefficients), metric)
        for metric in HEADLINE
        for effect, coefficients in weights.items()
    }
    adjusted = holm({str(k): c for k, c in found.items()}).values()
    table: dict[str, dict[str, Comparison]] = {metric: {} for metric in HEADLINE}
    for (metric, effect), c in zip(found, adjusted, strict=True):
        table[metric][effect] = c
    return table


def release_tests(results: Results) -> dict[str, Comparison]:
    """Metric -> the released code's less the paper's, Holm over the metrics."""
    wanted = ("multifair", "multifair_released")
    if any(name not in results.evaluations for name in wanted):
        return {}
    paper, released = (results.evaluations[name] for name in wanted)
    return holm({m: compare(released, paper, m) for m in HEADLINE})


def answers(
    results: Results, tests: Tests, modalities: Sequence[str], truth: Truth | None
) -> list[str]:
    """Lines of Markdown that answer the experiment's questions.

    Args:
      results: Of the run.
      tests: From `tests_against_joint`.
      modalities: Their names.
      truth: The law that the patients were drawn from, where it is known.
    """
    lines = ["**Does each level help, and do they help each other?**", ""]
    for name, (nothing, _, _) in CORNERS.items():
        lines += _levels_answer(results, name, TITLES[nothing])
    lines += [
        "",
        "**Does the released code's behaviour differ from the paper's?** "
        + _release_answer(results),
        "",
        "**Which methods differ from joint training?**",
        "",
        *_methods_answer(results, tests),
        "",
        "**What does each modality contribute?** "
        + _modalities_answer(results, modalities),
        *_truth_answer(results, modalities, truth),
        "",
        "**How are the groups served?** AUROC of each:",
        "",
        *_groups_table(results),
    ]
    return lines


def _levels_answer(results: Results, name: str, nothing: str) -> list[str]:
    found = effects(results, name)
    if not found:
        return [f"- {TITLES[CORNERS[name][1]]}: its grid was not run."]
    words = {
        "modality": "the modality level",
        "group": "the group level",
        "together": "both beyond the sum of each",
    }
    lines = []
    for effect, phrase in words.items():
        parts = [
            f"{HEADLINE[metric]} {_span(found[metric][effect])} "
            f"(p {p_text(found[metric][effect])})"
            for metric in HEADLINE
        ]
        clear = [
            f"{HEADLINE[metric]} {_judged(metric, found[metric][effect])}"
            for metric in HEADLINE
            if found[metric][effect].p_holm < LEVEL
        ]
        verdict = ", ".join(clear) if clear else "nothing is shown"
        lines.append(
            f"- {TITLES[CORNERS[name][1]]}, from {nothing.lower()}: {phrase}: "
            f"**{verdict}**. {'; '.join(parts)}."
        )
    return lines


def _judged(metric: str, c: Comparison) -> str:
    more = metric.partition("/")[0] in _MORE_IS_BETTER
    return "better" if (c.difference > 0) == more else "worse"


def _release_answer(results: Results) -> str:
    found = release_tests(results)
    if not found:
        return "The methods that show it were not run."
    parts = [
        f"{HEADLINE[metric]} {_span(c)} (p {p_text(c)})" for metric, c in found.items()
    ]
    clear = [HEADLINE[metric] for metric, c in found.items() if c.p_holm < LEVEL]
    verdict = (
        f"In {', '.join(clear)}, yes." if clear else "No difference is shown here."
    )
    gates = []
    for name in ("multifair", "multifair_released"):
        gate = np.asarray(results.histories[name]["fairness_gate"])
        gates.append(f"{TITLES[name]}: {gate.mean():.0%}")
    return (
        f"{verdict} Released less paper: {'; '.join(parts)}. Batches in which the gate "
        f"on the groups' AUROCs was open: {'; '.join(gates)}."
    )


def _methods_answer(results: Results, tests: Tests) -> list[str]:
    lines = []
    for title in main_methods(results):
        if title in ("joint", *_REFERENCES):
            continue
        found = {metric: tests[metric][title] for metric in HEADLINE}
        clear = [
            f"{HEADLINE[metric]} {_judged(metric, c)} ({_span(c)}, p {p_text(c)})"
            for metric, c in found.items()
            if c.p_holm < LEVEL
        ]
        text = "; ".join(clear) if clear else "no difference is shown"
        if all(math.isnan(c.p_holm) for c in found.values()):
            text = "not tested"
        lines.append(f"- {results.titles[title]}: {text}.")
    return lines or ["Joint training was run alone."]


def _modalities_answer(results: Results, modalities: Sequence[str]) -> str:
    """Single modalities against all, and the last unimodal validation AUROCs."""
    parts, joint = [], results.evaluations["joint"]
    others = {unimodal(m): f"{m} alone" for m in modalities}
    others[REFERENCE] = "a logistic regression of all, summarised a row a patient"
    beside = [
        f"less {words} {_span(compare(joint, results.evaluations[name], 'auroc'))}"
        for name, words in others.items()
        if name in results.evaluations
    ]
    for name in ("joint", "multifair", "multifair_released", "dual_level"):
        if name not in results.histories:
            continue
        last = results.histories[name]["unimodal_auroc"][0, -1]
        middle = np.nanmedian(last, axis=0)
        shown = ", ".join(
            f"{m} {v:.3f}" for m, v in zip(modalities, middle, strict=True)
        )
        parts.append(f"{TITLES[name]}: {shown}")
    compared = f"AUROC of joint training, {', '.join(beside)}. " if beside else ""
    return (
        f"{compared}The auxiliary heads' validation AUROC at the last step, median "
        f"over seeds: {'; '.join(parts)}."
    )


def _truth_answer(
    results: Results, modalities: Sequence[str], truth: Truth | None
) -> list[str]:
    """Where the law is known: how far each group is from the best that is possible."""
    if truth is None or BEST not in results.evaluations:
        return []
    (attribute,) = results.splits.attributes
    best = results.evaluations[BEST]
    lines = [
        "",
        (
            "**Is the known truth recovered?** What each modality alone could reach "
            "by the law, in patients who have it, and what training on it alone "
            "reaches, in all patients:"
        ),
        "",
    ]
    for modality in modalities:
        alone = results.evaluations.get(unimodal(modality))
        shown = []
        for group in GROUPS:
            text = f"{group} {truth.best_auc(group, modality):.3f}"
            if alone is not None:
                reached = alone.mean(f"{GROUP_AUROC}/{attribute}={group}")
                text += f" (reached {reached:.3f})"
            shown.append(text)
        lines.append(f"- {modality}: {', '.join(shown)}.")
    lines += ["", "AUROC of each group, less that of the best scores by law:", ""]
    for title in main_methods(results):
        if title == BEST:
            continue
        lost = [
            compare(
                results.evaluations[title], best, f"{GROUP_AUROC}/{attribute}={group}"
            )
            for group in GROUPS
        ]
        shown = ", ".join(f"{g} {_span(c)}" for g, c in zip(GROUPS, lost, strict=True))
        short = [g for g, c in zip(GROUPS, lost, strict=True) if c.high < 0]
        verdict = (
            f"short of it in {' and '.join(short)}"
            if short
            else "no shortfall is shown"
        )
        lines.append(f"- {results.titles[title]}: {shown}: {verdict}.")
    return lines


def _groups_table(results: Results) -> list[str]:
    some = next(iter(results.evaluations.values()))
    crossed = crossed_name(results.splits.attributes)
    start = f"{GROUP_AUROC}/{crossed}="
    groups = [m for m in some.repeats if m.startswith(start)]
    header = ["Method", *(markdown.escape(m.removeprefix(start)) for m in groups)]
    rows = []
    for title in main_methods(results):
        evaluation = results.evaluations[title]
        cells = []
        for metric in groups:
            low, high = evaluation.interval(metric)
            mean = markdown.number(evaluation.mean(metric), 3)
            cells.append(f"{mean} [{low:.3f}, {high:.3f}]")
        rows.append([results.titles[title], *cells])
    return tables.as_markdown(header, rows)


def p_text(c: Comparison) -> str:
    """The p-value after Holm, or before where there was no correction."""
    return markdown.p_value(c.p if math.isnan(c.p_holm) else c.p_holm)


def _span(c: Comparison) -> str:
    """The difference and its interval."""
    if math.isnan(c.difference):
        return "not defined"
    return f"{c.difference:+.4f} [{c.low:+.4f}, {c.high:+.4f}]"
