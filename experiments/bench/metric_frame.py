"""Rates with bootstrap intervals, by our library and by fairlearn's MetricFrame."""

import functools
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fairjax import metrics

RATES = {
    "selection_rate": metrics.selection_rate,
    "true_positive_rate": metrics.true_positive_rate,
    "false_positive_rate": metrics.false_positive_rate,
}
TAIL = 0.025
"""Tail probability at each end of the intervals."""


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
