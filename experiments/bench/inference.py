"""Simulates coverage and errors of intervals and tests where the truth is known.

Run ``python -m experiments.bench.inference --help`` for the options. Data are drawn
from groups with known rates. Each method's interval either covers the truth or does
not, and either claims a gap or does not. fairlearn's percentile interval is among the
methods, computed from counts (a test compares it with fairlearn's interval).
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import simulations, timing
from experiments.bench.simulations import Clusters, Scenario
from experiments.bench.timing import Limit
from experiments.core.files import prepare_folder, write_text

DOCUMENT = Path("docs/inference.md")
_SLACK = 1e-6
"""Tolerance for single precision, for interval ends that are equal to the truth."""

RATES = [(n, rate) for n in (10, 25, 100) for rate in (0.05, 0.3, 0.75)]
AUROCS = [(n, area) for n in (10, 25, 100) for area in (0.75, 0.9, 0.97)]
SPREAD = (25, 50, 100, 200, 300, 400)
SCENARIOS = [
    *(
        Scenario("TPR", (each,) * groups)
        for groups in (2, 6)
        for each in (25, 100, 400)
    ),
    Scenario("TPR", SPREAD),
    *(Scenario("odds", (each,) * groups) for groups in (2, 6) for each in (25, 100)),
    Scenario("mean odds", (100,) * 6),
    Scenario("TPR ratio", (100,) * 6),
    *(Scenario("AUROC", (25,) * groups) for groups in (2, 6)),
    Scenario("AUROC", SPREAD),
]
# Small groups beside a large one, and rates near 1, where Wilson's limits fail.
EXTREME = [
    Scenario("TPR", (10, 1000), 0.985),
    Scenario("TPR", (10,) * 5 + (2000,), 0.97),
    Scenario("TPR", (10,) * 5 + (2000,), 0.995),
    Scenario("odds", (25, 50, 100, 5000), 0.99),
    Scenario("TPR ratio", (10,) * 5 + (2000,), 0.97),
]
CLUSTERS = [
    *(Clusters(each, groups) for groups in (2, 6) for each in (25, 100)),
    *(Clusters(100, groups, varying=True) for groups in (2, 6)),
]
GAPS = (0.0, 0.1)


@dataclass(frozen=True)
class Options(timing.Options):
    """Simulate coverage and errors of the intervals and tests.

    Attributes:
      runs: Data sets for each line; the standard error of a coverage of 95 % is .0049
        with 2,000.
      replicates: Bootstrap replicates of each data set.
      permutations: Shuffles of each data set.
      draws: Draws in the simulation of a gap's quantile.
      seed: Seed of all simulations.
      docs: Also copy the tables to docs/inference.md.
      quick: Use a tenth of the runs.
    """

    runs: Annotated[int, Limit(10)] = 2000
    replicates: Annotated[int, Limit(10)] = 400
    permutations: Annotated[int, Limit(10)] = 99
    draws: Annotated[int, Limit(10)] = 4000
    seed: Annotated[int, Limit(0)] = 0

    @property
    def sizes(self) -> simulations.Sizes:
        """The sizes of each run's computations."""
        return simulations.Sizes(self.replicates, self.permutations, self.draws)


@dataclass(frozen=True)
class Line:
    """A line of a table: the setting, fractions and widths, mean intervals."""

    setting: tuple[str, ...]
    found: tuple[float, ...]
    ends: tuple[tuple[float, float], ...] = ()

    def cells(self) -> list[str]:
        """Returns the cells as the table shows them."""
        found = ["-" if np.isnan(one) else f"{one:.3f}" for one in self.found]
        ends = [f"[{lower:.3f}, {upper:.3f}]" for lower, upper in self.ends]
        return [*self.setting, *found, *ends]


def many(one: Callable[..., Any], options: Options, truth: Any, *settings: Any) -> Any:
    """Runs ``one(key, truth, *settings)`` for every key; returns ``[runs, ...]``."""
    keys = jax.random.split(jax.random.key(options.seed), options.runs)
    truth = jnp.asarray(truth, float)
    return jax.tree.map(np.asarray, _mapped(one, keys, truth, settings))


@functools.partial(jax.jit, static_argnums=(0, 3))
def _mapped(one, keys, truth, settings):
    batch = min(50, keys.shape[0])
    return jax.lax.map(lambda key: one(key, truth, *settings), keys, batch_size=batch)


def covers(intervals: np.ndarray, truth: float | np.ndarray) -> float:
    """Computes the fraction of intervals ``[..., 2]`` that cover the truth."""
    lower, upper = intervals[..., 0], intervals[..., 1]
    return float(np.mean((lower <= truth + _SLACK) & (upper >= truth - _SLACK)))


def width(intervals: np.ndarray) -> float:
    """Computes the mean width of intervals ``[..., 2]``."""
    return float(np.mean(intervals[..., 1] - intervals[..., 0]))


def claims(intervals: np.ndarray) -> float:
    """Computes the fraction of intervals ``[..., 2]`` that lie above 0."""
    return float(np.mean(intervals[..., 0] > _SLACK))


def rate_line(options: Options, trials: int, rate: float) -> Line:
    """Simulates intervals of one rate."""
    found = many(simulations.single_rate, options, (trials, rate), options.replicates)
    shares = [covers(found[:, method], rate) for method in range(3)]
    widths = [width(found[:, method]) for method in range(3)]
    return Line((str(trials), f"{rate:g}"), (*shares, *widths))


def auroc_line(options: Options, positives: int, area: float) -> Line:
    """Simulates intervals of one AUROC."""
    found = many(simulations.single_auroc, options, area, positives)
    shares = [covers(found[:, method], area) for method in range(2)]
    return Line((str(positives), f"{area:g}"), tuple(shares))


def gap_line(options: Options, scenario: Scenario, gap: float) -> Line:
    """Simulates intervals and the permutation test of a gap."""
    found = many(simulations.find, options, gap, scenario, options.sizes)
    low, high = min(scenario.positives), max(scenario.positives)
    truth = scenario.truth(gap)
    names = {"TPR ratio": "1 - TPR ratio", "odds": "equalized odds"}
    setting = (
        names.get(scenario.metric, scenario.metric),
        str(len(scenario.positives)),
        str(low) if low == high else f"{low} to {high}",
        f"{scenario.rate:g}",
        f"{truth:.3g}",
    )
    return Line(
        setting,
        (
            covers(found.percentile, truth),
            covers(found.interval, truth),
            claims(found.percentile),
            claims(found.interval),
            float(np.mean(found.p_value <= 0.05)),
            *(float(mean) for mean in found.gap.mean(axis=0)),
        ),
        tuple(
            (float(lower), float(upper))
            for lower, upper in (found.percentile.mean(0), found.interval.mean(0))
        ),
    )


def cluster_line(options: Options, scenario: Clusters, gap: float) -> Line:
    """Simulates intervals where patients have several rows."""
    found = many(simulations.find_clustered, options, gap, scenario, options.draws)
    values = np.asarray(simulations.spread(jnp.asarray(gap), scenario.groups))
    setting = (
        "row" if scenario.varying else "patient",
        str(scenario.groups),
        str(scenario.patients),
        f"{gap:g}",
    )
    pairs = [
        (
            covers(found.rates[:, way], values),
            covers(found.gap[:, way], gap),
            claims(found.gap[:, way]),
        )
        for way in (0, 1)
    ]
    return Line(setting, tuple(np.stack(pairs, axis=1).ravel().tolist()))


TABLES: dict[str, tuple[tuple[str, ...], Callable[[Options], list[Line]]]] = {
    "rates": (
        (
            *("rows", "true rate", "Wilson", "Jeffreys", "percentile"),
            *("width: Wilson", "Jeffreys", "percentile"),
        ),
        lambda options: [rate_line(options, *one) for one in RATES],
    ),
    "aurocs": (
        ("positives", "true AUROC", "`auroc_interval`", "DeLong without logit"),
        lambda options: [auroc_line(options, *one) for one in AUROCS],
    ),
    "gaps": (
        (
            *("gap of", "groups", "positives each", "rate", "true gap"),
            *("holds it: percentile", "`gap_interval`"),
            *("claims a gap: percentile", "`gap_interval`", "permutation test"),
            *("mean gap: raw", "`gap_noise`'s"),
            *("mean ends: percentile", "`gap_interval`"),
        ),
        lambda options: [
            *(gap_line(options, one, gap) for one in SCENARIOS for gap in GAPS),
            *(gap_line(options, one, 0.0) for one in EXTREME),
        ],
    ),
    "clusters": (
        (
            *("group is of the", "groups", "patients each", "true gap"),
            *("rates held: by row", "by patient", "gap held: by row", "by patient"),
            *("claims a gap: by row", "by patient"),
        ),
        lambda options: [
            cluster_line(options, one, gap) for one in CLUSTERS for gap in GAPS
        ],
    ),
}


def main(options: Options) -> dict[str, list[Line]]:
    """Simulates, prints and saves.

    Raises:
      ValueError: If an option or a folder cannot be used.
    """
    timing.check_numbers(options)
    prepare_folder(options.output)
    if options.quick:
        options = dataclasses.replace(options, runs=max(10, options.runs // 10))
    made = (
        f"{options.runs:,} data sets a line (standard error of a fraction of .95: "
        f"{(0.95 * 0.05 / options.runs) ** 0.5:.3f}, of .5: "
        f"{(0.25 / options.runs) ** 0.5:.3f}), {options.replicates} bootstrap "
        f"replicates, {options.permutations} shuffles, {options.draws:,} draws, seed "
        f"{options.seed}, jax {version('jax')}."
    )
    found = {}
    for name, (columns, simulate) in TABLES.items():
        found[name] = simulate(options)
        cells = [line.cells() for line in found[name]]
        timing.show(columns, found[name], width=150)
        text = timing.markdown(columns, "r" * len(columns), cells, made)
        write_text(options.output / f"inference-{name}.md", text)
        if options.docs:
            timing.copy_between_markers(DOCUMENT, f"inference-{name}", text)
    tables = {name: [*map(dataclasses.asdict, lines)] for name, lines in found.items()}
    record = {"options": dataclasses.asdict(options), "tables": tables}
    text = json.dumps(record, indent=1, default=str)
    write_text(options.output / "inference.json", text)
    return found


if __name__ == "__main__":
    timing.command(main, Options, __doc__)
