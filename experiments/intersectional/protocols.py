"""The two protocols side by side."""

from collections.abc import Iterator

import numpy as np

from experiments.intersectional.paper import SplitMean, over_splits
from experiments.intersectional.results import NAMES, TABLE, Results
from experiments.intersectional.stability import spread
from experiments.intersectional.stages import PAPER
from experiments.intersectional.tables import full_name, shown_levels
from experiments.reporting import markdown, tables
from fairjax.evaluation.names import AVERAGE_ODDS, F1

_ODDS = f"{AVERAGE_ODDS}/mean"


def protocols(results: Results) -> list[str]:
    """Compares the published protocol's numbers with the clean protocol's numbers."""
    paper = results.paper
    if not paper.values:
        return ["No configuration of the paper was run."]
    header = ["Configuration", "F1, clean", "F1, paper's", "difference"]
    header += ["Average odds, clean", "paper's", "difference", "spread over splits"]
    rows, shifts = [], {True: [], False: []}
    for name, values in paper.values.items():
        evaluation = results.evaluations[name]
        row = [results.titles[name]]
        for metric in (F1, _ODDS):
            clean, (low, high) = evaluation.mean(metric), evaluation.interval(metric)
            found = over_splits(values[metric], paper.overlap[name], metric)
            row += [
                _with_ends(clean, low, high),
                _with_ends(found.mean, found.low, found.high),
                f"{found.mean - clean:+.3f}",
            ]
        rows.append([*row, markdown.number(spread(values[_ODDS]), 3)])
        shifts[PAPER[name].equalized].append(found.mean - clean)
    lines = [
        "Means over the subgroups: F1 score, and distance in average odds.",
        "",
        *tables.as_markdown(header, rows),
        "",
        *_incomplete(results),
    ]
    if shifts[True] and shifts[False]:
        with_eo, without = (float(np.mean(shifts[key])) for key in (True, False))
        lines.append(
            "In the mean distance in average odds the paper's protocol's estimates "
            f"differ from the clean ones by {with_eo:+.4f} on average where equalized "
            "odds ends the pipeline, which a tenth of the patients tests, and by "
            f"{without:+.4f} elsewhere. These differences have no interval, and the "
            "protocols differ both in the patients who test and in those whom models, "
            "rules and thresholds are made of: what they come from is not told here."
        )
    return lines


def _with_ends(mean: float, low: float, high: float) -> str:
    ends = ", ".join(markdown.number(end, 3) for end in (low, high))
    return f"{markdown.number(mean, 3)} [{ends}]"


def _figures(results: Results) -> Iterator[tuple[str, str, SplitMean]]:
    """Yields metric, name and value of each number of the paper's protocol."""
    paper = results.paper
    shown = {
        F1: "mean F1 score",
        _ODDS: "mean distance in average odds",
        **{
            full_name(metric, level): f"{NAMES[metric].lower()} of {level}"
            for metric in TABLE
            for level in shown_levels(results)
        },
    }
    for name, values in paper.values.items():
        for metric, words in shown.items():
            found = over_splits(values[metric], paper.overlap[name], metric)
            yield metric, f"{results.titles[name]}, {words}", found


def _incomplete(results: Results) -> list[str]:
    """Says which numbers of the paper's protocol are from fewer splits than all."""
    figures = list(_figures(results))
    splits = len(next(iter(results.paper.values.values()))[_ODDS])
    fewer = [figure for figure in figures if figure[2].splits < splits]
    if not fewer:
        return []
    means = [metric for metric, _, _ in fewer if metric in (F1, _ODDS)]
    fewest = sorted(fewer, key=lambda figure: figure[2].splits)[:3]
    listed = "; ".join(
        f"{markdown.escape(n)}: {found.splits}" for _, n, found in fewest
    )
    words = (
        "A metric is undefined in a split that has nobody to tell it by, such as "
        f"nobody with the outcome. So {len(fewer)} of {len(figures)} figures of the "
        f"paper's protocol are of fewer than its {splits} splits, as `subgroups.csv` "
        f"says of each; {len(means)} of them are in the table above. The fewest: "
        f"{listed}."
    )
    return [words, ""]
