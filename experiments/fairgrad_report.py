"""What the FairGrad experiment writes, all of it from the data."""

import csv
import io
import json
import math
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments import figures, markdown
from experiments.evaluation import (
    GAP,
    MIN_SUPPORT,
    WORST_GROUP_SUPPORT,
    Comparison,
    Evaluation,
)
from experiments.fairgrad_findings import (
    FAMILIES,
    HEADLINE,
    PLAIN,
    Tests,
    answers,
    cross_effects,
    front_tests,
    p_text,
    tests_against_erm,
)
from experiments.fairgrad_results import Results, family, main_methods
from experiments.files import write_text

# A run of fewer methods draws fewer: those of an earlier run would not belong to it.
_FIGURES = {
    f"{name}.{suffix}"
    for name in ("tradeoff", "gaps", "training")
    for suffix in ("png", "svg")
}


def write(results: Results, folder: Path) -> None:
    """All files of the report: each whole, or as it was."""
    tests = tests_against_erm(results)
    summary = _summary(results, tests)
    texts = {
        "results.csv": _rows(results),
        "summary.md": _markdown(results, tests),
        "summary.json": json.dumps(summary, indent=1, allow_nan=False) + "\n",
    }
    # Nothing of an earlier report is touched before all of this one is written.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as scratch:
        made = Path(scratch)
        _figures(results, made)
        for name, text in texts.items():
            write_text(made / name, text)
        names = {path.name for path in made.iterdir()}
        for name in sorted(names):
            (made / name).replace(folder / name)
    for name in _FIGURES - names:
        (folder / name).unlink(missing_ok=True)


def show(results: Results, console: Console) -> None:
    """The results table, in the terminal."""
    header, rows = _table(results, tests_against_erm(results))
    narrow = ("Method", "AUROC", "Mean gap", "corrected", "p (mean gap)")
    keep = [i for i, column in enumerate(header) if column in narrow]
    source = results.splits.table
    table = Table(title=escape(f"{source.title}: {source.outcome}"))
    for column in keep:
        table.add_column(header[column], justify="left" if column == 0 else "right")
    for row in rows:
        # Intervals are in the report; a terminal is 80 columns wide.
        table.add_row(*(row[column].split(" [")[0] for column in keep))
    console.print(table)


def _summary(results: Results, tests: Tests) -> dict[str, Any]:
    splits, options = results.splits, results.options
    attributes = splits.attributes
    methods = {}
    for title, evaluation in results.evaluations.items():
        gap: dict[str, Any] = {}
        for name in (*attributes, "mean", "worst"):
            gap[name] = {
                **_estimate(evaluation, f"{GAP}/{name}"),
                "null": _number(evaluation.null[name]),
                "p_null": _number(evaluation.p_noise[name]),
                "corrected": _number(evaluation.corrected[name]),
            }
        test: dict[str, Any] = {}
        if title != "erm":
            test = {m: _comparison(tests[m][title]) for m in PLAIN}
            test[GAP] = {
                name: _comparison(tests[f"{GAP}/{name}"][title])
                for name in (*attributes, "mean", "worst")
            }
        methods[title] = {
            "title": results.titles[title],
            **{metric: _estimate(evaluation, metric) for metric in PLAIN},
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
            for (one, other), c in front_tests(results).items()
        },
        "cross_effects": {
            name: {
                f"{target} on {measured}": _comparison(c)
                for (target, measured), c in found.items()
            }
            for name, found in cross_effects(results).items()
        },
    }


def _protocol(results: Results) -> dict[str, Any]:
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
        "attributes_among_inputs": [
            name for name in splits.attributes if name in splits.table.features
        ],
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
        f"at least {MIN_SUPPORT} of each outcome; null: mean of {options.permutations} "
        "shuffles of the attribute within outcome, p_null: the chance of such a gap "
        "there, twice its mean over repeats; corrected: less its bias under a "
        "parametric bootstrap at empirical-Bayes rates; worst: the largest of the "
        "attributes' gaps in each repeat, shuffle and resample",
        "worst_group_auroc": "intersections of all attributes with at least "
        f"{WORST_GROUP_SUPPORT} of each outcome",
        "intervals": f"95 %; variance over patients ({options.bootstrap} resamples, "
        "joint over methods and repeats) "
        + (
            "plus that between repeats over their number"
            if splits.num_repeats > 1
            else "only: one repeat tells nothing of other splits and seeds"
        ),
        "tests": "t, two-sided, of the paired difference from ERM with that variance "
        "and Satterthwaite's degrees of freedom; Holm over the methods, for each metric"
        if splits.num_repeats > 1
        else "none: they need two repeats",
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


def _rows(results: Results) -> str:
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


def _figures(results: Results, folder: Path) -> None:
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


def _table(results: Results, tests: Tests) -> tuple[list[str], list[list[str]]]:
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
            markdown.number(e.mean("worst_group_auroc"), 3),
        ]
        tested = ("auroc", f"{GAP}/mean")
        row += ["" if title == "erm" else p_text(tests[m][title]) for m in tested]
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


def _markdown(results: Results, tests: Tests) -> str:
    splits = results.splits
    header, rows = _table(results, tests)
    source = splits.table
    patients = (
        f"{len(source.label):,} patients; {markdown.escape(source.outcome)}: "
        f"{source.label.mean():.1%}. Sensitive attributes: "
        f"{markdown.escape(', '.join(splits.attributes))}. These are not the papers' "
        "data, and no figure here reproduces one of theirs."
    )
    legend = (
        "Gap: equalized-odds difference, the larger of the TPR and FPR gaps; attribute "
        "columns are raw. Where a method has several settings, validation chose one in "
        "each fold. p: against ERM, paired, Holm-corrected over the methods (but for "
        "the two reference models)."
    )
    lines = [
        f"# FairGrad on {markdown.escape(source.title)}",
        "",
        patients,
        "",
        "## Results",
        "",
        "| " + " | ".join(markdown.escape(name) for name in header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        legend,
        "",
        "![AUROC against mean equalized-odds difference](tradeoff.png)",
        "",
        "![Each attribute's gap, its interval and its noise floor](gaps.png)",
        "",
    ]
    if any(name in results.histories for name in ("fairgrad", HEADLINE)):
        lines += ["![Conflicts during training](training.png)", ""]
    lines += ["## Answers", "", *answers(results, tests), ""]
    lines += ["## Protocol", ""]
    for name, value in _protocol(results).items():
        text = value
        if isinstance(value, dict):
            text = "; ".join(f"{k}: {v}" for k, v in value.items()) or "none"
        elif isinstance(value, list):
            text = ", ".join(value)
        lines.append(f"- **{name.replace('_', ' ')}**: {markdown.escape(str(text))}")
    origin = f"Source: {source.citation}. Licence: {source.licence}."
    lines += ["", markdown.escape(origin), ""]
    return "\n".join(lines)
