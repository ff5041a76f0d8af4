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

import tyro
from rich.console import Console
from rich.table import Table

from experiments.bench import aif360_mitigation
from experiments.bench.mitigation_tasks import (
    COLUMNS,
    Row,
    measure_odds,
    measure_repair,
    measure_score_odds,
)
from experiments.bench.timing import (
    environment,
    keep_freed_memory,
    markdown,
    save,
    setting,
)
from experiments.files import prepare_folder


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


def tasks(options: Options) -> list[Callable[[], Row]]:
    """What is measured, in the table's order."""
    repair = functools.partial(
        measure_repair,
        features=options.features,
        groups=options.groups,
        rounds=options.repair_rounds,
        aif360=options.aif360,
    )
    odds = functools.partial(measure_odds, rounds=options.rounds, aif360=options.aif360)
    score_odds = functools.partial(
        measure_score_odds, groups=options.groups, rounds=options.rounds
    )
    return [
        *(functools.partial(repair, rows) for rows in options.sizes),
        *(functools.partial(odds, rows) for rows in options.odds_sizes),
        *(functools.partial(score_odds, rows) for rows in options.odds_sizes),
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
