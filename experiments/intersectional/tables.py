"""The paper's table, as two files: every metric, subgroup and configuration."""

import numpy as np

from experiments.core.files import csv_text
from experiments.intersectional.groups import SUBGROUP
from experiments.intersectional.paper import over_splits
from experiments.intersectional.results import NAMES, SAID, TABLE, Results
from experiments.reporting import markdown, tables


def full_name(metric: str, level: str) -> str:
    """Returns the full name of a metric of one subgroup."""
    return f"{metric}/{SUBGROUP}={level}"


def full_title(results: Results, title: str) -> str:
    """Returns a configuration's title, with the kind of thresholds if not the chosen.

    Configurations with random decisions have no thresholds.
    """
    setting = results.predictions[title].setting
    return results.titles[title] + (f", {setting} threshold" if setting else "")


def shown_levels(results: Results) -> list[str]:
    """Lists the subgroups that are large enough to be compared, in order."""
    first = next(iter(results.evaluations.values()))
    return [
        level
        for level in results.subgroups.levels
        if full_name(TABLE[0], level) in first.repeats
    ]


def as_markdown(results: Results) -> str:
    """Makes a table per metric: configurations by subgroups, values with intervals."""
    found = results.subgroups
    levels = shown_levels(results)
    counts = np.bincount(found.codes, minlength=len(found.levels))
    sizes = dict(zip(found.levels, counts, strict=True))
    lines = [
        f"# Every subgroup on {markdown.escape(found.table.title)}",
        "",
        SAID["subgroups"].format(reference=markdown.escape(found.reference)),
        "",
    ]
    header = ["Configuration"]
    header += [f"{markdown.escape(level)} ({sizes[level]:,})" for level in levels]
    for metric in TABLE:
        rows = []
        for name, evaluation in results.evaluations.items():
            row = [full_title(results, name)]
            for level in levels:
                full = full_name(metric, level)
                ends = " to ".join(
                    markdown.number(end, 2) for end in evaluation.interval(full)
                )
                row.append(f"{markdown.number(evaluation.mean(full), 3)} [{ends}]")
            rows.append(row)
        lines += [f"## {NAMES[metric]}", "", *tables.as_markdown(header, rows), ""]
    return "\n".join(lines)


def as_csv(results: Results) -> str:
    """Makes CSV with a row for each protocol, configuration, metric and subgroup.

    For the paper's protocol, the number of splits counts splits in which the metric is
    defined; in the clean protocol every repeat is pooled over its folds.
    """
    rows = []

    def add(protocol, name, metric, level, numbers, splits=None):
        texts = ["" if np.isnan(x) else f"{x:.6g}" for x in numbers]
        rows.append([protocol, name, metric, level, *texts, splits])

    levels = shown_levels(results)
    for name, evaluation in results.evaluations.items():
        for metric in TABLE:
            for level in levels:
                full = full_name(metric, level)
                numbers = (evaluation.mean(full), *evaluation.interval(full))
                add("clean", name, metric, level, numbers)
    paper = results.paper
    for name, values in paper.values.items():
        for metric in TABLE:
            for level in levels:
                full = full_name(metric, level)
                found = over_splits(values[full], paper.overlap[name], full)
                add("paper", name, metric, level, found[:3], found.splits)
    header = ["protocol", "configuration", "metric", "subgroup", "value", "low", "high"]
    return csv_text([*header, "splits"], rows)
