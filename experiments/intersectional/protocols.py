"""The two protocols side by side."""

from collections.abc import Iterator

import numpy as np

from experiments.intersectional.paper import SplitMean, over_splits
from experiments.intersectional.results import NAMES, SAID, TABLE, Results
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
        return [SAID["protocols.none"]]
    header = ["Configuration", "F1, clean", "F1, paper", "difference"]
    header += ["Average odds, clean", "Average odds, paper", "difference"]
    header += ["standard deviation over splits"]
    rows, shifts = [], {True: [], False: []}
    for name, values in paper.values.items():
        evaluation = results.evaluations[name]
        row = [results.titles[name]]
        for metric in (F1, _ODDS):
            clean = evaluation.mean(metric)
            found = over_splits(values[metric], paper.overlap[name], metric)
            row += [
                markdown.with_interval(clean, *evaluation.interval(metric)),
                markdown.with_interval(*found[:3]),
                f"{found.mean - clean:+.3f}",
            ]
        rows.append([*row, markdown.number(spread(values[_ODDS]), 3)])
        shifts[PAPER[name].equalized].append(found.mean - clean)
    lines = [
        SAID["protocols.start"],
        "",
        *tables.as_markdown(header, rows),
        "",
        *_incomplete(results),
    ]
    if shifts[True] and shifts[False]:
        with_eo, without = (float(np.mean(shifts[key])) for key in (True, False))
        shift = SAID["protocols.shift"]
        lines.append(shift.format(with_eo=with_eo, without=without))
    return lines


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
    said = SAID["protocols.fewer"].format(
        fewer=len(fewer),
        numbers=len(figures),
        splits=splits,
        means=len(means),
        listed=listed,
    )
    return [said, ""]
