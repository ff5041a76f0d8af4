"""What evaluating a method gives, with intervals, and paired tests between methods.

Patients are resampled jointly for all methods and repeats, so that differences are
paired and patients who are in every repeat are not counted as new ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from experiments.core.level_measures import limits
from experiments.core.measures import GAP
from fairjax import metrics


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The metrics of one method.

    Attributes:
      repeats: metric -> ``[R]``.
      bootstrap: metric -> ``[B]``, means over repeats for each resample of patients.
      null: metric -> its noise floor, its mean where the attributes mean nothing.
      corrected: metric -> the bias-corrected gap; NaN where no correction is defined.
      p_noise: metric -> p-value of no more than noise.
    """

    repeats: Mapping[str, np.ndarray]
    bootstrap: Mapping[str, np.ndarray]
    null: Mapping[str, float]
    corrected: Mapping[str, float]
    p_noise: Mapping[str, float]

    def mean(self, metric: str) -> float:
        """Mean over repeats."""
        return float(np.mean(self.repeats[metric]))

    def interval(self, metric: str) -> tuple[float, float]:
        """95 % interval over patients and over repeats, within the metric's range."""
        test = _test(self.repeats[metric], self.bootstrap[metric])
        low, high = limits(metric)
        return max(test.low, low), min(test.high, high)


@dataclass(frozen=True)
class Comparison:
    """A paired difference: its interval and its p-value, before and after Holm."""

    difference: float
    low: float
    high: float
    p: float
    p_holm: float = float("nan")


Key = TypeVar("Key")
# Metric -> method -> difference from the baseline.
Tests = Mapping[str, Mapping[str, Comparison]]


def compare(method: Evaluation, baseline: Evaluation, metric: str) -> Comparison:
    """The method's metric less the baseline's, paired over patients and repeats."""
    return _test(
        method.repeats[metric] - baseline.repeats[metric],
        method.bootstrap[metric] - baseline.bootstrap[metric],
    )


def contrast(
    evaluations: Sequence[Evaluation], coefficients: Sequence[float], metric: str
) -> Comparison:
    """A sum of methods' metrics with coefficients, paired over patients and repeats.

    The effect of a factor in a grid of methods, say, or an interaction of two.
    """
    pairs = list(zip(coefficients, evaluations, strict=True))
    repeats = [c * e.repeats[metric] for c, e in pairs]
    bootstrap = [c * e.bootstrap[metric] for c, e in pairs]
    return _test(np.sum(repeats, axis=0), np.sum(bootstrap, axis=0))


def compare_all(
    evaluations: Mapping[str, Evaluation], baseline: str, metric: str
) -> dict[str, Comparison]:
    """Each method against the baseline, Holm-corrected over the methods."""
    found = {
        name: compare(evaluation, evaluations[baseline], metric)
        for name, evaluation in evaluations.items()
        if name != baseline
    }
    return holm(found)


def holm(found: Mapping[Key, Comparison]) -> dict[Key, Comparison]:
    """The comparisons with p-values adjusted for their number."""
    if not found:
        return {}
    adjusted = metrics.holm(jnp.array([c.p for c in found.values()]))
    return {
        name: Comparison(c.difference, c.low, c.high, c.p, float(p))
        for (name, c), p in zip(found.items(), adjusted, strict=True)
    }


def front_area(
    points: Sequence[Evaluation], reference: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Hypervolume of (AUROC, mean gap) points: by repeat, and by resample.

    Args:
      points: The settings of a family.
      reference: The worst AUROC and the largest gap of interest.
    """
    corner = jnp.array(reference)

    def areas(kind):
        stacked = [
            np.stack([getattr(p, kind)["auroc"], getattr(p, kind)[f"{GAP}/mean"]], -1)
            for p in points
        ]
        return np.asarray(_areas(jnp.asarray(np.stack(stacked, axis=1)), corner))

    return areas("repeats"), areas("bootstrap")


_areas = jax.jit(jax.vmap(metrics.hypervolume, in_axes=(0, None)))


def compare_fronts(
    family: Sequence[Evaluation],
    other: Sequence[Evaluation],
    reference: tuple[float, float],
) -> Comparison:
    """How much more area one family's front dominates than another's."""
    repeats, bootstrap = front_area(family, reference)
    other_repeats, other_bootstrap = front_area(other, reference)
    return _test(repeats - other_repeats, bootstrap - other_bootstrap)


def _test(repeats: np.ndarray, bootstrap: np.ndarray) -> Comparison:
    # One repeat says nothing of the variance between repeats: the interval is then one
    # over patients only, and there is no test.
    once = len(repeats) == 1
    differences = np.repeat(repeats, 2) if once else repeats
    test = metrics.paired_test(jnp.asarray(differences), jnp.asarray(bootstrap))
    return Comparison(
        float(test.difference),
        float(test.lower),
        float(test.upper),
        float("nan") if once else float(test.p_value),
    )
