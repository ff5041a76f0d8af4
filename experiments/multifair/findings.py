"""The MultiFair experiment's tests, and its answers in words."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.core.results import compare_to_baseline, main_methods
from experiments.datasets.simulated_modalities import GROUPS, Truth
from experiments.multifair.levels import levels_answer
from experiments.multifair.names import REFERENCE, TITLES, TUNED, WATCHED, unimodal
from experiments.multifair.results import SAID, Results
from experiments.multifair.verdicts import HEADLINE, better_or_worse
from experiments.reporting import markdown, tables
from experiments.reporting.differences import clear, span, untested, with_p
from fairjax.evaluation import Comparison, Tests, compare, crossed_name, holm
from fairjax.evaluation import names as metric_names
from fairjax.evaluation.names import AUROC_GAP, EQUITY, GAP, GROUP_AUROC, PARITY
from fairjax.metrics import group_auroc

METRICS = ("auroc", "brier", EQUITY, AUROC_GAP, PARITY, GAP, GROUP_AUROC)
# The best scores, where the distribution is known from which patients were drawn.
BEST = "best_possible"
# Not candidates: compared with joint training without correction.
_REFERENCES = (REFERENCE, BEST)
_RELEASE = ("multifair", "multifair_released")


def tested(results: Results) -> list[str]:
    """Lists the metrics of the summary, all compared with joint training."""
    attributes = results.splits.attributes
    groups = (*attributes, crossed_name(attributes))
    names = ["auroc", "brier"]
    for metric in (EQUITY, AUROC_GAP, PARITY, GAP):
        names += metric_names.full_names(metric, tuple(dict.fromkeys(groups)))
    some = next(iter(results.evaluations.values()))
    return names + [m for m in some.repeats if m.startswith(f"{GROUP_AUROC}/")]


def tests_against_joint(results: Results) -> Tests:
    """Compares methods with joint training by metric, with Holm over the methods."""
    return compare_to_baseline(results, "joint", tested(results), _REFERENCES)


def release_tests(results: Results) -> dict[str, Comparison]:
    """Compares the released code with the paper by metric, with Holm over metrics."""
    if any(name not in results.evaluations for name in _RELEASE):
        return {}
    paper, released = (results.evaluations[name] for name in _RELEASE)
    return holm({m: compare(released, paper, m) for m in HEADLINE})


def watched(results: Results) -> dict[str, dict[str, np.ndarray]]:
    """Returns title -> history, of the methods whose training is shown."""
    histories = results.histories
    return {TITLES[name]: histories[name] for name in WATCHED if name in histories}


def answers(
    results: Results, tests: Tests, modalities: Sequence[str], truth: Truth | None
) -> list[str]:
    """Writes lines of Markdown that answer the experiment's questions.

    Args:
      results: Results of the run.
      tests: Tests from `tests_against_joint`.
      modalities: Names of the modalities.
      truth: The distribution from which patients were drawn, if it is known.
    """
    return [
        SAID["levels"],
        *levels_answer(results),
        _release_answer(results),
        "",
        SAID["methods"],
        "",
        *_methods_answer(results, tests),
        "",
        SAID["settings"],
        "",
        *_settings_answer(results.selected),
        "",
        _modalities_answer(results, modalities),
        *_truth_answer(results, modalities, truth),
        "",
        SAID["groups"],
        "",
        *_groups_table(results),
    ]


def _release_answer(results: Results) -> str:
    found = release_tests(results)
    if not found:
        return SAID["release.not_run"]
    verdict = "No difference is shown."
    if shown := [HEADLINE[metric] for metric, c in found.items() if clear(c)]:
        verdict = f"Yes, in {', '.join(shown)}."
    elif untested(found.values()):
        verdict = "Not tested."
    parts = [f"{HEADLINE[metric]} {with_p(c)}" for metric, c in found.items()]
    gates = [
        f"{TITLES[name]}: {np.mean(results.histories[name]['fairness_gate']):.0%}"
        for name in _RELEASE
    ]
    return SAID["release"].format(
        verdict=verdict, parts="; ".join(parts), gates="; ".join(gates)
    )


def _methods_answer(results: Results, tests: Tests) -> list[str]:
    lines = []
    for title in main_methods(results):
        if title in ("joint", *_REFERENCES):
            continue
        found = {metric: tests[metric][title] for metric in HEADLINE}
        shown = [
            f"{HEADLINE[metric]} {better_or_worse(metric, c)} ({with_p(c)})"
            for metric, c in found.items()
            if clear(c)
        ]
        text = "; ".join(shown) or "no difference is shown"
        if untested(found.values()):
            text = "not tested"
        lines.append(f"- {results.titles[title]}: {text}.")
    return lines or ["Only joint training was run."]


def _settings_answer(selected: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Says how often each setting was chosen, and whether a grid ends too early."""
    lines = []
    for name in TUNED:
        counts = selected.get(name)
        if counts is None:
            continue
        shown = ", ".join(f"{s} in {n}" for s, n in counts.items())
        first, *_, last = counts
        most, often = max(counts.items(), key=lambda choice: choice[1])
        total = sum(counts.values())
        edge = ""
        if most in (first, last) and often > total / 2:
            edge = SAID["edge"].format(most=most)
        lines.append(f"- {TITLES[name]}: {shown} of {total} folds{edge}.")
    return lines or ["No method with several settings was run."]


def _modalities_answer(results: Results, modalities: Sequence[str]) -> str:
    """Compares single modalities with all, and lists the last unimodal AUROCs."""
    parts, joint = [], results.evaluations["joint"]
    others = {unimodal(m): f"{m} alone" for m in modalities}
    others[REFERENCE] = SAID["regression"]
    beside = [
        f"{other} {span(compare(joint, results.evaluations[name], 'auroc'))}"
        for name, other in others.items()
        if name in results.evaluations
    ]
    for title, history in watched(results).items():
        middle = np.nanmedian(history["unimodal_auroc"][0, -1], axis=0)
        each = zip(modalities, middle, strict=True)
        parts.append(f"{title}: {', '.join(f'{m} {v:.3f}' for m, v in each)}")
    compared = SAID["compared"].format(beside=", ".join(beside)) if beside else ""
    return SAID["modalities"].format(
        compared=f"{compared} " if compared else "", parts="; ".join(parts)
    )


def _truth_answer(
    results: Results, modalities: Sequence[str], truth: Truth | None
) -> list[str]:
    """Compares each group with the best possible scores, if these are known."""
    if truth is None or BEST not in results.evaluations:
        return []
    (attribute,) = results.splits.attributes
    best = results.evaluations[BEST]
    lines = ["", SAID["truth"], ""]
    metrics = {group: f"{GROUP_AUROC}/{attribute}={group}" for group in GROUPS}
    table = results.splits.table
    of_group = table.attributes[attribute].map(GROUPS.index).to_numpy(np.int32)
    for place, modality in enumerate(modalities):
        alone = results.evaluations.get(unimodal(modality))
        possible = group_auroc(
            table.label,
            truth.log_odds[:, place].astype(np.float32),
            of_group,
            num_groups=len(GROUPS),
        )
        shown = []
        for group, most in zip(GROUPS, possible, strict=True):
            text = f"{group} {truth.best_auc(group, modality):.3f}, {most:.3f}"
            if alone is not None:
                text += f", reached {alone.mean(metrics[group]):.3f}"
            shown.append(text)
        lines.append(f"- {modality}: {'; '.join(shown)}.")
    lines += ["", SAID["short"], ""]
    for title in main_methods(results):
        if title == BEST:
            continue
        own = results.evaluations[title]
        lost = {g: compare(own, best, metric) for g, metric in metrics.items()}
        shown = ", ".join(f"{g} {span(c)}" for g, c in lost.items())
        short = " and ".join(g for g, c in lost.items() if c.high < 0)
        verdict = (
            f"below the best possible in {short}" if short else "no shortfall is shown"
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
        e = results.evaluations[title]
        cells = [markdown.with_interval(e.mean(m), *e.interval(m)) for m in groups]
        rows.append([results.titles[title], *cells])
    return tables.as_markdown(header, rows)
