"""What metrics with intervals cost: against fairlearn and scikit-learn, and at size.

Run ``python -m experiments.bench.metrics --help`` for the options. Both sides get the
same NumPy columns, and what they compute is compared.
"""

import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any

import jax
import numpy as np
from sklearn.metrics import roc_auc_score

from experiments.bench import timing
from experiments.bench.metric_frame import (
    Cohort,
    compared,
    metric_frame,
    rates_with_intervals,
)
from experiments.bench.timing import Cell
from fairjax import metrics


@dataclass(frozen=True)
class Options(timing.MemoryOptions):
    """Time metrics with intervals against other libraries, and at size.

    Attributes:
      sizes: Numbers of rows for the comparison with fairlearn.
      groups: Number of groups.
      replicates: Bootstrap replicates of ours, to which the others are extrapolated.
      fairlearn_replicates: Replicates that fairlearn is timed with.
      auroc_rows: Rows for the bootstrap of the AUROC.
      auroc_replicates: Its replicates.
      sklearn_replicates: Replicates that scikit-learn is timed with.
      delong_rows: Rows for DeLong's covariance of two models.
      count_rows: Rows to count.
      rounds: Times that each of our calls is made, after the first.
      fairlearn: Compare with fairlearn, if it is installed.
    """

    sizes: tuple[int, ...] = (10_000, 100_000)
    groups: int = 6
    replicates: int = 2000
    fairlearn_replicates: int = 50
    auroc_rows: int = 20_000
    auroc_replicates: int = 1000
    sklearn_replicates: int = 10
    delong_rows: int = 223_414
    count_rows: int = 10_000_000
    rounds: int = 9
    fairlearn: bool = True


@dataclass(frozen=True)
class Row(timing.Row):
    """One task."""

    task: Annotated[str, Cell("task")]
    rows: Annotated[int, Cell("rows", ",")]
    groups: Annotated[int, Cell("groups")]
    replicates: Annotated[int | None, Cell("replicates", ",")] = None
    milliseconds: Annotated[float | None, Cell("ms", ".2f")] = None
    compile_seconds: Annotated[float | None, Cell("compile s", ".1f")] = None
    against: Annotated[str, Cell("against")] = "-"
    their_seconds: Annotated[float | None, Cell("theirs s", ".1f")] = None
    ratio: Annotated[float | None, Cell("ratio", ",.0f")] = None
    difference: Annotated[float | None, Cell("difference", ".0e")] = None
    note: Annotated[str, Cell("note")] = ""


def clocked(call: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """A row of milliseconds of a call, the median, and seconds of the first one."""

    def wait() -> None:
        jax.block_until_ready(call())

    first = timing.timed(wait)
    taken = [timing.timed(wait) for _ in range(rounds)]
    return {"milliseconds": 1e3 * float(np.median(taken)), "compile_seconds": first}


def measure_rates(options: Options, rows: int) -> Row:
    """Rates with intervals, against fairlearn."""
    cohort = Cohort.make(rows, options.groups)
    run = functools.partial(
        rates_with_intervals,
        jax.random.key(0),
        cohort.labels,
        cohort.predictions,
        cohort.groups,
        num_groups=options.groups,
        num_replicates=options.replicates,
    )
    ours = clocked(run, options.rounds)
    task = "rates with bootstrap intervals"
    row = Row(task, rows, options.groups, options.replicates, **ours)
    if not options.fairlearn or importlib.util.find_spec("fairlearn") is None:
        return row
    seconds, frame = metric_frame(cohort, options.fairlearn_replicates)
    theirs = seconds * options.replicates / options.fairlearn_replicates
    estimates, _, replicates = run()
    difference, score = compared(
        estimates, replicates, frame, options.fairlearn_replicates
    )
    # Of a hundred ends, the largest of a normal score's is seldom above 4; the ends of
    # few replicates have a longer tail.
    note = f"{options.fairlearn_replicates} replicates took {seconds:.1f} s; "
    note += f"largest normal score of an end {score:.1f}"
    if difference > 1e-6:
        note = f"THE ESTIMATES DIFFER; {note}"
    if score > 6:
        note = f"THE INTERVALS DIFFER; {note}"
    return dataclasses.replace(
        row,
        against="fairlearn MetricFrame",
        their_seconds=theirs,
        ratio=1e3 * theirs / ours["milliseconds"],
        difference=difference,
        note=note,
    )


def measure_auroc(options: Options) -> Row:
    """The AUROC's bootstrap by group, against a loop over scikit-learn's."""
    cohort = Cohort.make(options.auroc_rows, options.groups)
    columns = (cohort.labels, cohort.scores, cohort.groups)
    run = jax.jit(
        lambda key, *columns: metrics.bootstrap_auroc(
            key,
            *columns,
            num_groups=options.groups,
            num_replicates=options.auroc_replicates,
        )
    )
    taken = clocked(lambda: run(jax.random.key(0), *columns), options.rounds)
    rng = np.random.default_rng(0)
    cells = [
        np.flatnonzero((cohort.groups == group) & (cohort.labels == label))
        for group in range(options.groups)
        for label in (0, 1)
    ]

    def theirs(draw: Callable[[np.ndarray], np.ndarray]) -> list[float]:
        found = []
        for group in range(options.groups):
            rows = np.concatenate([draw(cell) for cell in cells[2 * group :][:2]])
            found.append(roc_auc_score(cohort.labels[rows], cohort.scores[rows]))
        return found

    def loop() -> None:
        for _ in range(options.sklearn_replicates):
            theirs(lambda cell: rng.choice(cell, cell.size))

    seconds = timing.timed(loop)
    extrapolated = seconds * options.auroc_replicates / options.sklearn_replicates
    ours = metrics.group_auroc(*columns, num_groups=options.groups)
    difference = np.abs(np.asarray(ours) - theirs(lambda cell: cell)).max()
    return Row(
        "AUROC bootstrap",
        options.auroc_rows,
        options.groups,
        options.auroc_replicates,
        **taken,
        against="scikit-learn roc_auc_score",
        their_seconds=extrapolated,
        ratio=1e3 * extrapolated / taken["milliseconds"],
        difference=float(difference),
        note=f"{options.sklearn_replicates} replicates took {seconds:.2f} s",
    )


def measure_delong(options: Options) -> Row:
    """Two models' AUROCs and their covariance in every group."""
    cohort = Cohort.make(options.delong_rows, options.groups)
    other = cohort.scores + Cohort.make(options.delong_rows, 2, seed=1).scores
    both = np.stack([cohort.scores, other])
    found = clocked(
        lambda: metrics.delong(
            cohort.labels, both, cohort.groups, num_groups=options.groups
        ),
        options.rounds,
    )
    task = "DeLong covariance of 2 models"
    return Row(task, options.delong_rows, options.groups, **found)


def measure_counts(options: Options, groups: int) -> Row:
    """Counting rows by group, label and prediction."""
    cohort = Cohort.make(options.count_rows, groups)
    found = clocked(
        lambda: metrics.group_counts(
            cohort.labels, cohort.predictions, cohort.groups, num_groups=groups
        ),
        options.rounds,
    )
    millions = 1e-3 * options.count_rows / found["milliseconds"]
    note = f"{millions:.0f} million rows a second"
    return Row("counts", options.count_rows, groups, **found, note=note)


def main(options: Options) -> list[Row]:
    """Measure, print and save.

    Raises:
      ValueError: An option or a folder that cannot be used.
    """
    timing.check_numbers(options, some=("sizes",))
    options, about = timing.begin(
        options,
        sizes=(2000,),
        replicates=100,
        fairlearn_replicates=5,
        auroc_rows=2000,
        auroc_replicates=20,
        sklearn_replicates=2,
        delong_rows=2000,
        count_rows=100_000,
        rounds=3,
    )
    about["scikit-learn"] = version("scikit-learn")
    if importlib.util.find_spec("fairlearn") is not None:
        about["fairlearn"] = version("fairlearn")
    tasks = [
        *(functools.partial(measure_rates, options, rows) for rows in options.sizes),
        functools.partial(measure_auroc, options),
        functools.partial(measure_delong, options),
        functools.partial(measure_counts, options, options.groups),
        functools.partial(measure_counts, options, 10 * options.groups),
    ]
    rows = [task() for task in tasks]
    timing.show(Row.heads(), rows, width=150)
    timing.save(options, f"metrics-{timing.setting(about)}", Row, rows, about)
    return rows


if __name__ == "__main__":
    timing.command(main, Options, __doc__)
