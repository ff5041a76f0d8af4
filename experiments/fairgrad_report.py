"""What the FairGrad experiment writes: tables, figures and answers, all from the data."""

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from experiments import figures, references
from experiments.evaluation import (
    GAP,
    MIN_SUPPORT,
    WORST_GROUP_SUPPORT,
    Comparison,
    Evaluation,
    compare,
    compare_all,
    compare_fronts,
    gap_metrics,
    holm,
)
from experiments.files import write_text

if TYPE_CHECKING:
    from experiments.fairgrad import Results

HEADLINE = "fairgrad_limited"
FAMILIES = ("penalty", "penalty_absolute", "fairgrad_balanced", "fairgrad_limited")
AUROC_ALLOWANCE = 0.005
LEVEL = 0.05
PLAIN = ("auroc", "balanced_accuracy", "brier")


def write(results: "Results", folder: Path) -> None:
    """All files of the report: each whole, or as it was."""
    tests = _tests(results)
    summary = _summary(results, tests)
    _figures(results, folder)
    write_text(folder / "results.csv", _rows(results))
    write_text(folder / "summary.md", _markdown(results, tests))
    write_text(folder / "summary.json", json.dumps(summary, indent=1) + "\n")


def show(results: "Results", console: Console) -> None:
    """The results table, in the terminal."""
    header, rows = _table(results, _tests(results))
    narrow = ("Method", "AUROC", "Mean gap", "corrected", "p (mean gap)")
    keep = [i for i, column in enumerate(header) if column in narrow]
    table = Table(title=f"{results.splits.table.title}: {results.splits.table.outcome}")
    for column in keep:
        table.add_column(header[column], justify="left" if column == 0 else "right")
    for row in rows:
        # Intervals are in the report; a terminal is 80 columns wide.
        table.add_row(*(row[column].split(" [")[0] for column in keep))
    console.print(table)


def main_methods(results: "Results") -> list[str]:
    """The rows of the main table: one for each method, settings chosen by validation."""
    return [
        title
        for title, found in results.predictions.items()
        if found.setting in ("", "selected")
    ]


def family(results: "Results", name: str) -> list[tuple[str, Evaluation]]:
    """A family's settings and their evaluations, in order."""
    return [
        (found.setting, results.evaluations[title])
        for title, found in results.predictions.items()
        if found.name == name and found.setting not in ("", "selected")
    ]


def _tests(results: "Results") -> dict[str, dict[str, Comparison]]:
    """Metric -> method -> difference from ERM, Holm over the methods compared.

    The reference models are no candidates for fairness, so they are compared with ERM
    on their own.
    """
    main = main_methods(results)
    candidates = {
        title: results.evaluations[title]
        for title in main
        if title not in references.ALL
    }
    others = {
        title: evaluation
        for title, evaluation in results.evaluations.items()
        if title not in candidates
    }
    erm = results.evaluations["erm"]
    found = {}
    for metric in (*PLAIN, *gap_metrics(results.splits.attributes)):
        found[metric] = compare_all(candidates, "erm", metric)
        for title, evaluation in others.items():
            found[metric][title] = compare(evaluation, erm, metric)
    return found


def _summary(
    results: "Results", tests: Mapping[str, Mapping[str, Comparison]]
) -> dict[str, Any]:
    splits, options = results.splits, results.options
    attributes = splits.attributes
    methods = {}
    for title, evaluation in results.evaluations.items():
        gap = {}
        for name in (*attributes, "mean", "worst"):
            gap[name] = {
                **_estimate(evaluation, f"{GAP}/{name}"),
                "null": _number(evaluation.null[name]),
                "corrected": _number(evaluation.corrected[name]),
            }
        test = {}
        if title != "erm":
            test = {m: _comparison(tests[m][title]) for m in PLAIN}
            test[GAP] = {
                name: _comparison(tests[f"{GAP}/{name}"][title])
                for name in (*attributes, "mean", "worst")
            }
        methods[title] = {
            "title": results.titles[title],
            **{metric: _estimate(evaluation, metric) for metric in PLAIN},
            "worst_group_auroc": _number(evaluation.mean("worst_group_auroc")),
            GAP: gap,
            "test_vs_erm": test,
        }
    return {
        "dataset": options.dataset,
        "rows": len(splits.table.label),
        "outcome": splits.table.outcome,
        "prevalence": _number(splits.table.label.mean()),
        "protocol": _protocol(results),
        "methods": methods,
        "selected_settings": results.selected,
        "fronts": {
            f"{one} - {other}": _comparison(c)
            for (one, other), c in _front_tests(results).items()
        },
        "cross_effects": {
            name: {
                f"{target} on {measured}": _comparison(c)
                for (target, measured), c in found.items()
            }
            for name, found in _cross_effects(results).items()
        },
    }


def _protocol(results: "Results") -> dict[str, Any]:
    splits, options, budget = results.splits, results.options, results.budget
    return {
        "split": f"{splits.num_repeats} × {splits.num_folds}-fold cross-validation by "
        "patient, stratified by label and attributes; of five folds three train, one "
        "validates, one tests; predictions pooled out of fold",
        "repeats": splits.num_repeats,
        "folds": splits.num_folds,
        "seed": options.seed,
        "attributes": list(splits.attributes),
        "inputs": f"{splits.inputs.shape[-1]} columns, imputed and encoded on each "
        "lane's training rows",
        "dropped_columns": dict(splits.table.dropped),
        "excluded_rows": dict(splits.table.excluded),
        "budget": f"{budget.steps} AdamW steps of {budget.batch_size} patients for "
        f"every method; MLP {'-'.join(map(str, budget.hidden))}, learning rate "
        f"{budget.learning_rate:g} on a cosine, weight decay {budget.weight_decay:g}; "
        "the last step is evaluated",
        "threshold": "the score that selects the prevalence on the lane's validation "
        "fold",
        "selection": "in each lane, on its validation fold alone: the smallest soft "
        f"equalized-odds gap among settings that lose at most {options.tolerance:g} "
        "AUROC there",
        "equalized_odds_difference": "larger of the TPR and the FPR gap, groups with "
        f"at least {MIN_SUPPORT} of each outcome; null: mean under {options.permutations} "
        "shuffles of the attribute within outcome; corrected: less its bias under a "
        "parametric bootstrap at empirical-Bayes rates",
        "worst_group_auroc": "intersections of all attributes with at least "
        f"{WORST_GROUP_SUPPORT} of each outcome",
        "intervals": f"95 %; variance over patients ({options.bootstrap} resamples, "
        "joint over methods and repeats) plus variance between repeats over their number",
        "tests": "normal, two-sided, of the paired difference from ERM with that "
        "variance; Holm over the methods, for each metric",
    }


def _estimate(evaluation: Evaluation, metric: str) -> dict[str, float | None]:
    low, high = evaluation.interval(metric)
    return {
        "mean": _number(evaluation.mean(metric)),
        "low": _number(low),
        "high": _number(high),
    }


def _comparison(c: Comparison) -> dict[str, float | None]:
    return {
        "difference": _number(c.difference),
        "low": _number(c.low),
        "high": _number(c.high),
        "p": _number(c.p),
        "p_holm": _number(c.p_holm),
    }


def _number(value: Any) -> float | None:
    """Rounded to seven digits, so that files stay readable; None for NaN."""
    value = float(value)
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _rows(results: "Results") -> str:
    """results.csv: a row for each method, setting, repeat, metric and attribute."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["method", "setting", "repeat", "metric", "attribute", "value"])
    for title, evaluation in results.evaluations.items():
        found = results.predictions[title]
        for name, values in evaluation.repeats.items():
            metric, _, attribute = name.partition("/")
            for repeat, value in enumerate(values):
                row = [found.name, found.setting, repeat, metric, attribute]
                writer.writerow([*row, f"{value:.7g}"])
    return out.getvalue()


def _front_tests(results: "Results") -> dict[tuple[str, str], Comparison]:
    """Area of each FairGrad family's front less that of each penalty family's."""
    erm = results.evaluations["erm"]
    corner = (erm.mean("auroc") - 0.03, erm.mean(f"{GAP}/mean"))
    fronts = {name: [e for _, e in family(results, name)] for name in FAMILIES}
    found = {
        (one, other): compare_fronts([*fronts[one], erm], [*fronts[other], erm], corner)
        for one in ("fairgrad_balanced", "fairgrad_limited")
        for other in ("penalty", "penalty_absolute")
        if fronts[one] and fronts[other]
    }
    return dict(
        zip(found, holm({str(k): c for k, c in found.items()}).values(), strict=True)
    )


def _cross_effects(
    results: "Results",
) -> dict[str, dict[tuple[str, str], Comparison]]:
    """How fixing one attribute changed each attribute's gap, Holm over all pairs."""
    erm = results.evaluations["erm"]
    found = {}
    for name in ("penalty_single", "fairgrad_single"):
        pairs = {
            (target, measured): compare(evaluation, erm, f"{GAP}/{measured}")
            for target, evaluation in family(results, name)
            for measured in results.splits.attributes
        }
        if pairs:
            adjusted = holm({str(k): c for k, c in pairs.items()}).values()
            found[name] = dict(zip(pairs, adjusted, strict=True))
    return found


def _figures(results: "Results", folder: Path) -> None:
    title = f"{results.splits.table.title}, {results.splits.table.outcome}"
    curves = {}
    for name in FAMILIES:
        settings = family(results, name)
        if settings:
            curves[results.titles[name]] = settings
    single = {
        results.titles[title]: results.evaluations[title]
        for title in main_methods(results)
        if results.predictions[title].name not in FAMILIES
    }
    figures.save(figures.tradeoff(curves, single, title=title), folder, "tradeoff")
    shown = {
        results.titles[title]: results.evaluations[title]
        for title in main_methods(results)
    }
    figures.save(
        figures.gaps(shown, results.splits.attributes, title=title), folder, "gaps"
    )
    histories = {}
    for name in ("fairgrad", HEADLINE):
        if name in results.histories:
            history = results.histories[name]
            middle = len(history["conflict_share"]) // 2
            histories[results.titles[name]] = {k: v[middle] for k, v in history.items()}
    if histories:
        drawn = figures.training(histories, results.splits.attributes, title=title)
        figures.save(drawn, folder, "training")


def _table(
    results: "Results", tests: Mapping[str, Mapping[str, Comparison]]
) -> tuple[list[str], list[list[str]]]:
    attributes = results.splits.attributes
    header = [
        "Method",
        "AUROC",
        "Bal. acc.",
        "Brier",
        *attributes,
        "Mean gap",
        "corrected",
        "Worst gap",
        "Worst-group AUROC",
        "p (AUROC)",
        "p (mean gap)",
    ]
    rows = []
    for title in main_methods(results):
        e = results.evaluations[title]
        low, high = e.interval("auroc")
        gap_low, gap_high = e.interval(f"{GAP}/mean")
        row = [
            results.titles[title],
            f"{e.mean('auroc'):.4f} [{low:.3f}, {high:.3f}]",
            f"{e.mean('balanced_accuracy'):.4f}",
            f"{e.mean('brier'):.4f}",
            *(f"{e.mean(f'{GAP}/{name}'):.3f}" for name in attributes),
            f"{e.mean(f'{GAP}/mean'):.4f} [{gap_low:.3f}, {gap_high:.3f}]",
            f"{e.corrected['mean']:.4f}",
            f"{e.mean(f'{GAP}/worst'):.3f}",
            f"{e.mean('worst_group_auroc'):.3f}",
        ]
        for metric in ("auroc", f"{GAP}/mean"):
            row.append("" if title == "erm" else _p(tests[metric][title]))
        rows.append(row)
    floor = results.evaluations["erm"].null
    rows.append(
        [
            "Noise floor of the gaps",
            *[""] * 3,
            *(f"{floor[name]:.3f}" for name in attributes),
            f"{floor['mean']:.4f}",
            "",
            f"{floor['worst']:.3f}",
            *[""] * 3,
        ]
    )
    return header, rows


def _p(c: Comparison) -> str:
    value = c.p if math.isnan(c.p_holm) else c.p_holm
    return "<.001" if value < 0.001 else f"{value:.3f}"


def _markdown(results: "Results", tests: Mapping[str, Mapping[str, Comparison]]) -> str:
    splits = results.splits
    header, rows = _table(results, tests)
    lines = [
        f"# FairGrad on {splits.table.title}",
        "",
        f"{len(splits.table.label):,} patients; {splits.table.outcome}: "
        f"{splits.table.label.mean():.1%}. Sensitive attributes: "
        f"{', '.join(splits.attributes)}. These are not the papers' data, and no figure "
        "here reproduces one of theirs.",
        "",
        "## Results",
        "",
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        "Gap: equalized-odds difference, the larger of the TPR and FPR gaps; attribute "
        "columns are raw. Where a method has several settings, validation chose one in "
        "each fold. p: against ERM, paired, Holm-corrected over the methods (not for the "
        "two reference models).",
        "",
        "![AUROC against mean equalized-odds difference](tradeoff.png)",
        "",
        "![Each attribute's gap, its interval and its noise floor](gaps.png)",
        "",
    ]
    if any(name in results.histories for name in ("fairgrad", HEADLINE)):
        lines += ["![Conflicts during training](training.png)", ""]
    lines += ["## Answers", "", *_answers(results, tests), ""]
    lines += ["## Protocol", ""]
    for name, value in _protocol(results).items():
        text = value
        if isinstance(value, dict):
            text = "; ".join(f"{k}: {v}" for k, v in value.items()) or "none"
        elif isinstance(value, list):
            text = ", ".join(value)
        lines.append(f"- **{name.replace('_', ' ')}**: {text}")
    lines += [
        "",
        f"Source: {splits.table.citation}. Licence: {splits.table.licence}.",
        "",
    ]
    return "\n".join(lines)


def _answers(
    results: "Results", tests: Mapping[str, Mapping[str, Comparison]]
) -> list[str]:
    lines = ["**Is ERM a fair opponent?** " + _erm_answer(results), ""]
    lines += [
        "**Does FairGrad improve multi-attribute equalized odds significantly at "
        "competitive AUROC?**",
        "",
    ]
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


def _erm_answer(results: "Results") -> str:
    erm = results.evaluations["erm"]
    best = max(references.ALL, key=lambda n: results.evaluations[n].mean("auroc"))
    gap = compare(results.evaluations[best], erm, "auroc")
    inside = gap.low <= 0
    return (
        f"The better reference, {references.ALL[best][0]}, differs from it by "
        f"{gap.difference:+.4f} AUROC [{gap.low:+.4f}, {gap.high:+.4f}]: ERM "
        + ("matches it." if inside else "does not match it.")
    )


def _improvement(
    results: "Results", tests: Mapping[str, Mapping[str, Comparison]], title: str
) -> str:
    erm, e = results.evaluations["erm"], results.evaluations[title]
    auroc, gap = tests["auroc"][title], tests[f"{GAP}/mean"][title]
    raw = -gap.difference / erm.mean(f"{GAP}/mean")
    corrected = 1 - e.corrected["mean"] / erm.corrected["mean"]
    better = gap.difference < 0 and gap.p_holm < LEVEL
    kept = auroc.difference >= -AUROC_ALLOWANCE
    verdict = (
        "yes" if better and kept else "fairer, at a price" if better else "not shown"
    )
    return (
        f"{verdict}. Mean gap {gap.difference:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}], "
        f"p {_p(gap)}: {raw:.0%} of the raw gap and {corrected:.0%} of the corrected gap "
        f"are gone. AUROC {auroc.difference:+.4f} [{auroc.low:+.4f}, {auroc.high:+.4f}], "
        f"p {_p(auroc)}."
    )


def _cross_answer(
    results: "Results", tests: Mapping[str, Mapping[str, Comparison]]
) -> str:
    sentences = []
    for name, found in _cross_effects(results).items():
        others = {k: c for k, c in found.items() if k[0] != k[1]}
        worse = [k for k, c in others.items() if c.difference > 0]
        shown = [k for k in worse if others[k].p_holm < LEVEL]
        largest = max(others, key=lambda k: others[k].difference)
        c = others[largest]
        sentences.append(
            f"{results.titles[f'{name}[{largest[0]}]']} at a time: "
            f"{len(worse)} of {len(others)} other gaps grew, {len(shown)} of them beyond "
            f"noise (Holm); the largest growth is {largest[1]} when {largest[0]} is "
            f"fixed, {c.difference:+.4f} [{c.low:+.4f}, {c.high:+.4f}], p {_p(c)}."
        )
    if HEADLINE in results.evaluations:
        all_at_once = {
            a: tests[f"{GAP}/{a}"][HEADLINE] for a in results.splits.attributes
        }
        grown = [a for a, c in all_at_once.items() if c.difference > 0]
        sentences.append(
            "Reconciling all attributes at once "
            f"({results.titles[HEADLINE]}), the gaps that grew are: "
            + (
                ", ".join(
                    f"{a} {all_at_once[a].difference:+.4f} (p {_p(all_at_once[a])})"
                    for a in grown
                )
                or "none"
            )
            + "."
        )
    return " ".join(sentences) or "The methods that show it were not run."


def _penalty_answer(results: "Results") -> list[str]:
    lines = []
    for (one, other), c in _front_tests(results).items():
        verdict = "no difference is shown"
        if c.p_holm < LEVEL:
            verdict = (
                "its front is better" if c.difference > 0 else "its front is worse"
            )
        lines.append(
            f"- {results.titles[one]}, against {results.titles[other]}: area dominated "
            f"(AUROC × gap) {c.difference:+.2e} [{c.low:+.2e}, {c.high:+.2e}], p {_p(c)}: "
            f"{verdict}."
        )
    if HEADLINE in results.evaluations and "penalty" in results.evaluations:
        one, other = results.evaluations[HEADLINE], results.evaluations["penalty"]
        gap = compare(one, other, f"{GAP}/mean")
        auroc = compare(one, other, "auroc")
        lines.append(
            f"- With settings chosen by validation, {results.titles[HEADLINE]} less "
            f"{results.titles['penalty']}: mean gap {gap.difference:+.4f} "
            f"[{gap.low:+.4f}, {gap.high:+.4f}], AUROC {auroc.difference:+.4f} "
            f"[{auroc.low:+.4f}, {auroc.high:+.4f}]."
        )
    return lines or ["The methods that show it were not run."]
