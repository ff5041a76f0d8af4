"""What mitigation costs: repair and equal rates, against AIF360.

Run ``python -m experiments.bench.mitigation --help`` for the options. Both sides get
the same arrays, are called in turns, and what they achieve is compared.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments.bench import aif360_mitigation
from experiments.bench.timing import (
    decimals,
    environment,
    keep_freed_memory,
    markdown,
    save,
    setting,
    timed,
)
from experiments.files import prepare_folder
from fairjax.mitigation import DisparateImpactRemover, equal_rate_rules
from fairjax.mitigation.distances import distribution_distances

COLUMNS = (
    *("task", "rows", "features", "groups", "ms", "first s"),
    *("against", "theirs s", "ratio", "ours reaches", "theirs reaches", "of"),
)
_REPAIRED = "largest KS distance of two groups"
_ODDS = "mean of false positive and false negative rate"


@dataclass(frozen=True)
class Options:
    """Time mitigation against AIF360.

    Attributes:
      sizes: Numbers of rows to repair.
      features: Of each.
      groups: Of each; the names of AIF360's are numbers, which it sorts into bins.
      odds_sizes: Numbers of rows to equalise odds of.
      rounds: Times that both are called in turns, after the first.
      repair_rounds: The same for repair, where AIF360 takes minutes.
      keep_freed_memory: As for ``experiments.bench.jacobian``.
      output: Folder of the results.
      aif360: Compare with AIF360, if it is installed.
      docs: Also copy the table to docs/performance.md.
      quick: Small sizes and few rounds.
    """

    sizes: tuple[int, ...] = (10_000, 100_000)
    features: int = 50
    groups: int = 10
    odds_sizes: tuple[int, ...] = (10_000, 150_000)
    rounds: int = 9
    repair_rounds: int = 3
    keep_freed_memory: bool = True
    output: Path = Path("results/bench")
    aif360: bool = True
    docs: bool = False
    quick: bool = False


@dataclass(frozen=True)
class Row:
    """One task.

    Attributes:
      task: What is done.
      rows: How many.
      features: How many; 0 where none are read.
      groups: How many.
      milliseconds: Of ours, the median of the rounds.
      first_seconds: Of our first call, compilation included.
      reached: What ours reaches.
      of: What that is; less is better.
      against: What it is compared with.
      their_seconds: The median of theirs.
      ratio: The median over rounds of their time and ours.
      their_reached: What theirs reaches.
    """

    task: str
    rows: int
    features: int
    groups: int
    milliseconds: float
    first_seconds: float
    reached: float
    of: str
    against: str = "-"
    their_seconds: float | None = None
    ratio: float | None = None
    their_reached: float | None = None

    def cells(self) -> list[str]:
        """As shown in the table."""
        return [
            self.task,
            f"{self.rows:,}",
            str(self.features or "-"),
            str(self.groups),
            decimals(self.milliseconds, 1),
            decimals(self.first_seconds, 1),
            self.against,
            decimals(self.their_seconds, 3),
            "-" if self.ratio is None else f"{self.ratio:,.1f}",
            decimals(self.reached, 4),
            decimals(self.their_reached, 4),
            self.of,
        ]


def clocked(
    ours: Callable[[], Any], theirs: Callable[[], Any] | None, rounds: int
) -> dict[str, Any]:
    """Times of both, called in turns, and what the last calls returned."""
    last: dict[str, Any] = {}

    def keep(name: str, call: Callable[[], Any]) -> None:
        last[name] = call()

    first = timed(lambda: keep("ours", ours))
    taken = []
    for _ in range(rounds):
        mine = timed(lambda: keep("ours", ours))
        other = np.nan if theirs is None else timed(lambda: keep("theirs", theirs))
        taken.append((mine, other))
    mine, other = np.array(taken).T
    found = {
        "milliseconds": 1e3 * float(np.median(mine)),
        "first_seconds": first,
        "last": last,
    }
    if theirs is not None:
        found["their_seconds"] = float(np.median(other))
        found["ratio"] = float(np.median(other / mine))
    return found


def table_of(
    rows: int, features: int, groups: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Features that groups have at other places and of other widths."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, rows)
    place = 0.5 * rng.standard_normal((groups, features))
    width = np.exp(0.2 * rng.standard_normal((groups, features)))
    return place[group] + width[group] * rng.standard_normal((rows, features)), group


def outcomes_of(
    rows: int, groups: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores and groups: rare outcomes are the harder to tell."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, rows)
    worse = group / groups
    label = (rng.random(rows) < 0.5 - 0.3 * worse).astype(np.int64)
    score = (1.5 - worse) * label - 0.7 + rng.standard_normal(rows)
    return label, score, group


def measure_repair(options: Options, rows: int) -> Row:
    """The disparate impact remover, learnt and applied, against AIF360's."""
    values, groups = table_of(rows, options.features, options.groups)
    theirs = aif360_mitigation.repair(values, groups) if options.aif360 else None
    found = clocked(
        lambda: DisparateImpactRemover().fit_transform(
            values, sensitive_features=groups
        ),
        theirs,
        options.repair_rounds,
    )
    reached = {
        name: float(
            distribution_distances(
                np.asarray(repaired), groups, num_groups=options.groups
            )[0].max()
        )
        for name, repaired in found.pop("last").items()
    }
    return Row(
        "disparate impact remover",
        rows,
        options.features,
        options.groups,
        reached=reached["ours"],
        of=_REPAIRED,
        **_compared(theirs, reached),
        **found,
    )


def measure_odds(options: Options, rows: int) -> Row:
    """Equalized odds of hard decisions in two groups, against AIF360's."""
    labels, scores, groups = outcomes_of(rows, 2)
    decisions = (scores >= 0).astype(np.int64)
    theirs = (
        aif360_mitigation.equal_odds(labels, decisions, groups)
        if options.aif360
        else None
    )
    found = clocked(
        functools.partial(
            _cost, labels, decisions.astype(np.float64), groups, num_groups=2
        ),
        theirs,
        options.rounds,
    )
    reached = found.pop("last")
    return Row(
        "equalized odds of decisions",
        rows,
        0,
        2,
        reached=reached["ours"],
        of=_ODDS,
        **_compared(theirs, reached),
        **found,
    )


def measure_score_odds(options: Options, rows: int) -> Row:
    """Equalized odds of scores in several groups, which AIF360 has not."""
    labels, scores, groups = outcomes_of(rows, options.groups)
    found = clocked(
        functools.partial(_cost, labels, scores, groups, num_groups=options.groups),
        None,
        options.rounds,
    )
    return Row(
        "equalized odds of scores",
        rows,
        0,
        options.groups,
        reached=found.pop("last")["ours"],
        of=_ODDS,
        **found,
    )


def _cost(
    labels: np.ndarray, scores: np.ndarray, groups: np.ndarray, *, num_groups: int
) -> float:
    return equal_rate_rules(
        labels, scores, groups, num_groups=num_groups, objective="balanced_error"
    ).cost


def _compared(theirs: object, reached: dict[str, float]) -> dict[str, Any]:
    if theirs is None:
        return {}
    return {"against": "AIF360", "their_reached": reached["theirs"]}


def tasks(options: Options) -> list[Callable[[], Row]]:
    """What is measured, in the table's order."""
    return [
        *(functools.partial(measure_repair, options, rows) for rows in options.sizes),
        *(functools.partial(measure_odds, options, r) for r in options.odds_sizes),
        *(
            functools.partial(measure_score_odds, options, rows)
            for rows in options.odds_sizes
        ),
    ]


def main(options: Options) -> list[Row]:
    """Measure, print and save.

    Raises:
      ValueError: An option or a folder that cannot be used.
    """
    for field in dataclasses.fields(options):
        given = getattr(options, field.name)
        numbers = given if isinstance(given, tuple) else (given,)
        if any(type(number) is int and number < 1 for number in numbers):
            raise ValueError(f"--{field.name} must be 1 or more: {given}.")
    if options.groups < 2:
        raise ValueError(f"--groups must be 2 or more: {options.groups}.")
    prepare_folder(options.output)
    if options.quick:
        options = dataclasses.replace(
            options,
            sizes=(4000,),
            features=3,
            odds_sizes=(2000,),
            rounds=2,
            repair_rounds=1,
        )
    there = options.aif360 and aif360_mitigation.installed()
    options = dataclasses.replace(options, aif360=there)
    kept = options.keep_freed_memory and keep_freed_memory()
    about = environment(kept) | {
        name: version(name) for name in ("scipy", "scikit-learn")
    }
    if there:
        about |= {name: version(name) for name in ("aif360", "BlackBoxAuditing")}
    table, rows = Table(*COLUMNS), []
    for task in tasks(options):
        rows.append(row := task())
        table.add_row(*row.cells())
    Console(width=170).print(table)
    alignment = "l" + "r" * 5 + "l" + "r" * 4 + "l"
    text = markdown(COLUMNS, alignment, [row.cells() for row in rows], about)
    save(options.output, f"mitigation-{setting(kept)}", rows, text, about, options.docs)
    return rows


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except ValueError as error:
        sys.exit(f"error: {error}")
