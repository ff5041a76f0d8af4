"""Measures metrics with intervals: against fairlearn and scikit-learn, and at scale.

Run ``python -m experiments.bench.metrics --help`` for the options. Both sides get the
same NumPy columns, and their results are compared.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import roc_auc_score

from experiments.bench import timing
from experiments.bench.timing import Cell, Limit, Numbers
from fairjax import metrics

RATES = {
    "selection_rate": metrics.selection_rate,
    "true_positive_rate": metrics.true_positive_rate,
    "false_positive_rate": metrics.false_positive_rate,
}
TAIL = 0.025
"""Tail probability at each end of the intervals."""


@dataclass(frozen=True)
class Options(timing.MemoryOptions):
    """Time metrics with intervals against other libraries, and at scale.

    Attributes:
      sizes: Numbers of rows for the comparison with fairlearn.
      groups: Number of groups.
      replicates: Our bootstrap replicates; other libraries' times are extrapolated to
        this number.
      fairlearn_replicates: Replicates with which fairlearn is timed.
      auroc_rows: Rows for the bootstrap of the AUROC.
      auroc_replicates: Replicates of the bootstrap of the AUROC.
      sklearn_replicates: Replicates with which scikit-learn is timed.
      delong_rows: Rows for DeLong's covariance of two models.
      count_rows: Rows to count.
      rounds: Times that each of our calls is made, after the first.
      fairlearn: Compare with fairlearn, if it is installed.
    """

    sizes: Annotated[Numbers, Limit(some=True, quick=(2000,))] = (10_000, 100_000)
    groups: int = 6
    replicates: Annotated[int, Limit(quick=100)] = 2000
    fairlearn_replicates: Annotated[int, Limit(quick=5)] = 50
    auroc_rows: Annotated[int, Limit(quick=2000)] = 20_000
    auroc_replicates: Annotated[int, Limit(quick=20)] = 1000
    sklearn_replicates: Annotated[int, Limit(quick=2)] = 10
    delong_rows: Annotated[int, Limit(quick=2000)] = 223_414
    count_rows: Annotated[int, Limit(quick=100_000)] = 10_000_000
    rounds: Annotated[int, Limit(quick=3)] = 9
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


@dataclass(frozen=True)
class Cohort:
    """Columns of one table."""

    labels: np.ndarray
    scores: np.ndarray
    predictions: np.ndarray
    groups: np.ndarray

    @classmethod
    def make(cls, rows: int, groups: int, seed: int = 0) -> "Cohort":
        """Makes scores whose ranking differs somewhat between groups."""
        rng = np.random.default_rng(seed)
        group = rng.integers(0, groups, rows, dtype=np.int32)
        labels = rng.random(rows, dtype=np.float32) < 0.1 + 0.02 * group
        noise = rng.standard_normal(rows, dtype=np.float32)
        scores = noise + (1 + 0.05 * group.astype(np.float32)) * labels
        predictions = scores >= 1
        return cls(labels.astype(np.int8), scores, predictions.astype(np.int8), group)


def summaries(rates: jax.Array, overall: jax.Array) -> dict[str, jax.Array]:
    """Computes MetricFrame's summaries of rates ``[..., G]`` and overall ``[...]``."""
    least, most = jnp.nanmin(rates, axis=-1), jnp.nanmax(rates, axis=-1)
    from_overall = rates / overall[..., None]
    return {
        "overall": overall,
        "by_group": rates,
        "group_min": least,
        "group_max": most,
        "difference": most - least,
        "difference_to_overall": jnp.nanmax(jnp.abs(rates - overall[..., None]), -1),
        "ratio": least / most,
        "ratio_to_overall": jnp.nanmin(
            jnp.minimum(from_overall, 1 / from_overall), axis=-1
        ),
    }


def all_summaries(counts: metrics.GroupCounts) -> dict[str, dict[str, jax.Array]]:
    """Computes the summaries of every rate."""
    everyone = metrics.GroupCounts(jnp.sum(counts.counts, axis=-3, keepdims=True))
    return {
        name: summaries(rate(counts), rate(everyone)[..., 0])
        for name, rate in RATES.items()
    }


@functools.partial(jax.jit, static_argnames=("num_groups", "num_replicates"))
def rates_with_intervals(
    key: jax.Array,
    labels: jax.Array,
    predictions: jax.Array,
    groups: jax.Array,
    *,
    num_groups: int,
    num_replicates: int,
) -> tuple[Any, Any, Any]:
    """Computes rates, gaps and ratios, their intervals and their replicates."""
    counts = metrics.group_counts(labels, predictions, groups, num_groups=num_groups)
    # As in fairlearn, rows are resampled without regard to groups.
    drawn = metrics.multinomial_bootstrap(
        key, counts, num_replicates=num_replicates, within="table"
    )
    replicates = all_summaries(drawn)
    ends = jax.tree.map(
        lambda values: jnp.nanquantile(values, jnp.array([TAIL, 1 - TAIL]), axis=0),
        replicates,
    )
    return all_summaries(counts), ends, replicates


def metric_frame(cohort: Cohort, replicates: int) -> tuple[float, Any]:
    """Computes fairlearn's frame, and measures the seconds."""
    import fairlearn.metrics

    start = time.perf_counter()
    frame = fairlearn.metrics.MetricFrame(
        metrics={name: getattr(fairlearn.metrics, name) for name in RATES},
        y_true=cohort.labels,
        y_pred=cohort.predictions,
        sensitive_features=cohort.groups,
        n_boot=replicates,
        ci_quantiles=[TAIL, 1 - TAIL],
        random_state=0,
    )
    return time.perf_counter() - start, frame


def compared(
    estimates: Any, replicates: Any, frame: Any, num_replicates: int
) -> tuple[float, float]:
    """Computes the estimates' largest difference, and the ends' largest normal score.

    The score of an interval's end is in standard deviations of the same quantile, in
    draws of as many of our replicates as fairlearn had.
    """
    pairs = {
        "overall": (frame.overall, frame.overall_ci),
        "by_group": (frame.by_group, frame.by_group_ci),
    }
    methods = {"": "between_groups", "_to_overall": "to_overall"}
    calls = {name: (name, {}) for name in ("group_min", "group_max")} | {
        f"{kind}{suffix}": (kind, {"method": method})
        for kind in ("difference", "ratio")
        for suffix, method in methods.items()
    }
    for name, (kind, how) in calls.items():
        ends = getattr(frame, f"{kind}_ci")(**how)
        pairs[name] = (getattr(frame, kind)(**how), ends)
    rng = np.random.default_rng(0)
    worst, score = 0.0, 0.0
    for rate in RATES:
        for name, (estimate, ends) in pairs.items():
            gap = np.asarray(estimates[rate][name]) - np.asarray(estimate[rate], float)
            worst = max(worst, float(np.abs(gap).max()))
            values = np.asarray(replicates[rate][name], float)
            drawn = values[rng.integers(0, len(values), (400, num_replicates))]
            for share, end in zip((TAIL, 1 - TAIL), ends, strict=True):
                quantiles = np.quantile(drawn, share, axis=1)
                away = np.abs(np.asarray(end[rate], float) - quantiles.mean(0))
                score = max(score, float(np.max(away / quantiles.std(0))))
    return worst, score


def clocked(call: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """Times a call, and returns the fields of a row."""
    found, _ = timing.clocked(call, None, rounds)
    return found | {"compile_seconds": found.pop("first_seconds")}


def against(name: str, seconds: float, ours: dict[str, Any]) -> dict[str, Any]:
    """Compares with another library's time, and returns the fields of a row."""
    ratio = 1e3 * seconds / ours["milliseconds"]
    return {"against": name, "their_seconds": seconds, "ratio": ratio}


def measure_rates(options: Options, rows: int) -> Row:
    """Measures rates with intervals, against fairlearn."""
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
    if not options.fairlearn or not timing.installed("fairlearn"):
        return row
    number = options.fairlearn_replicates
    seconds, frame = metric_frame(cohort, number)
    estimates, _, replicates = run()
    difference, score = compared(estimates, replicates, frame, number)
    # Among a hundred ends, the largest normal score is seldom above 4; with few
    # replicates the ends have a longer tail.
    note = f"{number} replicates took {seconds:.1f} s; "
    note += f"largest normal score of an end {score:.1f}"
    if difference > 1e-6:
        note = f"THE ESTIMATES DIFFER; {note}"
    if score > 6:
        note = f"THE INTERVALS DIFFER; {note}"
    theirs = seconds * options.replicates / number
    fields = against("fairlearn MetricFrame", theirs, ours)
    return dataclasses.replace(row, difference=difference, note=note, **fields)


def measure_auroc(options: Options) -> Row:
    """Measures the AUROC's bootstrap by group, against a loop over scikit-learn's."""
    cohort = Cohort.make(options.auroc_rows, options.groups)
    columns = (cohort.labels, cohort.scores, cohort.groups)
    number, timed = options.auroc_replicates, options.sklearn_replicates
    run = functools.partial(
        metrics.bootstrap_auroc, num_groups=options.groups, num_replicates=number
    )
    ours = clocked(
        functools.partial(jax.jit(run), jax.random.key(0), *columns), options.rounds
    )
    rng = np.random.default_rng(0)
    cell = 2 * cohort.groups + cohort.labels
    cells = [np.flatnonzero(cell == number) for number in range(2 * options.groups)]

    def theirs(draw: Callable[[np.ndarray], np.ndarray]) -> list[float]:
        drawn = [draw(rows) for rows in cells]
        pairs = zip(drawn[::2], drawn[1::2], strict=True)
        groups = map(np.concatenate, pairs)
        return [roc_auc_score(cohort.labels[r], cohort.scores[r]) for r in groups]

    def loop() -> None:
        for _ in range(timed):
            theirs(lambda rows: rng.choice(rows, rows.size))

    seconds = timing.timed(loop)
    found = metrics.group_auroc(*columns, num_groups=options.groups)
    difference = np.abs(np.asarray(found) - theirs(lambda rows: rows)).max()
    return Row(
        *("AUROC bootstrap", options.auroc_rows, options.groups, number),
        **ours,
        **against("scikit-learn roc_auc_score", seconds * number / timed, ours),
        difference=float(difference),
        note=f"{timed} replicates took {seconds:.2f} s",
    )


def measure_delong(options: Options) -> Row:
    """Measures two models' AUROCs and their covariance in every group."""
    rows, groups = options.delong_rows, options.groups
    cohort = Cohort.make(rows, groups)
    other = cohort.scores + Cohort.make(rows, 2, seed=1).scores
    columns = (cohort.labels, np.stack([cohort.scores, other]), cohort.groups)
    run = functools.partial(metrics.delong, *columns, num_groups=groups)
    found = clocked(run, options.rounds)
    return Row("DeLong covariance of 2 models", rows, groups, **found)


def measure_counts(options: Options, groups: int) -> Row:
    """Measures how long it takes to count rows by group, label and prediction."""
    cohort = Cohort.make(options.count_rows, groups)
    columns = (cohort.labels, cohort.predictions, cohort.groups)
    run = functools.partial(metrics.group_counts, *columns, num_groups=groups)
    found = clocked(run, options.rounds)
    millions = 1e-3 * options.count_rows / found["milliseconds"]
    note = f"{millions:.0f} million rows a second"
    return Row("counts", options.count_rows, groups, **found, note=note)


def tasks(options: Options) -> Iterator[list[Row]]:
    """Measures all tasks."""
    yield [
        *(measure_rates(options, rows) for rows in options.sizes),
        measure_auroc(options),
        measure_delong(options),
        *(measure_counts(options, n * options.groups) for n in (1, 10)),
    ]


def main(options: Options) -> list[Row]:
    """Measures, prints and saves.

    Raises:
      ValueError: If an option or a folder cannot be used.
    """
    packages = ["scikit-learn", *filter(timing.installed, ["fairlearn"])]
    kinds = {"metrics-{}": Row}
    (rows,) = timing.run(options, kinds, tasks, packages=packages, width=150)
    return rows


if __name__ == "__main__":
    timing.command(main, Options, __doc__)
