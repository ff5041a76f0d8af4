"""Evaluations of methods with intervals, and paired tests between methods.

Patients are resampled jointly for all methods and repeats. Differences are therefore
paired, and a patient in every repeat is not counted as several patients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from fairjax import metrics
from fairjax.evaluation._level_measures import limits
from fairjax.evaluation.names import GAP


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The metrics of one method.

    Attributes:
      repeats: metric -> ``[R]``.
      bootstrap: metric -> ``[B]``, means over repeats for each resample of patients.
      null: metric -> its noise floor, the mean where the attributes have no effect.
      corrected: metric -> the bias-corrected gap; NaN where no correction is defined.
      p_noise: metric -> p-value of the hypothesis that the attributes have no effect.

    Example:
      >>> one = Evaluation(
      ...     {"auroc": np.array([0.8, 0.82])}, {"auroc": np.array([0.79, 0.83])})
      >>> round(one.mean("auroc"), 3)
      0.81
      >>> [round(end, 2) for end in one.interval("auroc")]
      [0.57, 1.0]
    """

    repeats: Mapping[str, np.ndarray]
    bootstrap: Mapping[str, np.ndarray]
    null: Mapping[str, float] = field(default_factory=dict)
    corrected: Mapping[str, float] = field(default_factory=dict)
    p_noise: Mapping[str, float] = field(default_factory=dict)

    def mean(self, metric: str) -> float:
        """Returns the mean over repeats."""
        return float(np.mean(self.repeats[metric]))

    def interval(self, metric: str) -> tuple[float, float]:
        """Returns the 95 % interval over patients and repeats, clipped to the range."""
        test = _test(self.repeats[metric], self.bootstrap[metric])
        low, high = limits(metric)
        return max(test.low, low), min(test.high, high)


@dataclass(frozen=True)
class Comparison:
    """A paired difference, its 95 % interval, and p-values before and after Holm."""

    difference: float
    low: float
    high: float
    p: float
    p_holm: float = float("nan")


Key = TypeVar("Key")
# Metric -> method -> difference from the baseline.
Tests = Mapping[str, Mapping[str, Comparison]]


def compare(method: Evaluation, baseline: Evaluation, metric: str) -> Comparison:
    """Compares a method's metric with the baseline's, paired by patient and repeat.

    The interval and the p-value are Student's. The variance of the difference is its
    variance over resamples of patients plus its variance over repeats divided by the
    number of repeats (:func:`fairjax.metrics.paired_test`). The p-value of a single
    repeat is NaN.

    Example:
      >>> drawn, two = np.array([0.0, 0.1]), np.array([0.0, 0.02])
      >>> method = Evaluation({"auroc": 0.8 + two}, {"auroc": 0.8 + drawn})
      >>> baseline = Evaluation({"auroc": 0.7 + two}, {"auroc": 0.7 + drawn})
      >>> round(compare(method, baseline, "auroc").difference, 3)
      0.1
    """
    return contrast([method, baseline], [1, -1], metric)


def contrast(
    evaluations: Sequence[Evaluation], coefficients: Sequence[float | int], metric: str
) -> Comparison:
    """Tests a linear combination of methods' metrics, paired by patient and repeat.

    The combination may be the effect of a factor in a grid of methods, or an
    interaction of two factors.

    Example:
      >>> made = [Evaluation({"f1": x}, {"f1": x}) for x in np.eye(2)]
      >>> contrast(made, [3.0, 1.0], "f1").difference
      2.0
    """
    pairs = list(zip(coefficients, evaluations, strict=True))
    repeats = [c * e.repeats[metric] for c, e in pairs]
    bootstrap = [c * e.bootstrap[metric] for c, e in pairs]
    return _test(np.sum(repeats, axis=0), np.sum(bootstrap, axis=0))


def compare_all(
    evaluations: Mapping[str, Evaluation], baseline: str, metric: str
) -> dict[str, Comparison]:
    """Compares each method with the baseline, Holm-corrected over the methods.

    Example:
      >>> made = {n: Evaluation({"f1": x}, {"f1": x}) for n, x in zip("ab", np.eye(2))}
      >>> compare_all(made, "a", "f1")["b"].difference
      0.0
    """
    found = {
        name: compare(evaluation, evaluations[baseline], metric)
        for name, evaluation in evaluations.items()
        if name != baseline
    }
    return holm(found)


def holm(found: Mapping[Key, Comparison]) -> dict[Key, Comparison]:
    """Adjusts the p-values of comparisons for their number, by Holm's method.

    Example:
      >>> found = holm({"a": Comparison(0.1, 0.0, 0.2, 0.02)})
      >>> round(found["a"].p_holm, 3)
      0.02
    """
    if not found:
        return {}
    adjusted = metrics.holm(jnp.array([c.p for c in found.values()]))
    return {
        name: replace(c, p_holm=float(p))
        for (name, c), p in zip(found.items(), adjusted, strict=True)
    }


def front_area(
    points: Sequence[Evaluation], reference: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the hypervolume of (AUROC, mean gap) points, by repeat and by resample.

    Args:
      points: The evaluations of a method's settings.
      reference: The worst AUROC and the largest gap of interest.

    Example:
      >>> auroc, gap = np.array([0.75]), np.array([0.25])
      >>> values = {"auroc": auroc, "equalized_odds_difference/mean": gap}
      >>> front_area([Evaluation(values, values)], (0.5, 0.5))[0].tolist()
      [0.0625]
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
    """Compares the areas that the fronts of two methods' settings dominate.

    Example:
      >>> def front(auroc):
      ...     gap = {"equalized_odds_difference/mean": np.full(2, 0.2)}
      ...     values = {"auroc": np.full(2, auroc), **gap}
      ...     return [Evaluation(values, values)]
      >>> found = compare_fronts(front(0.8), front(0.75), (0.7, 0.3))
      >>> round(found.difference, 4)  # 0.1 * 0.1 - 0.05 * 0.1
      0.005
    """
    repeats, bootstrap = front_area(family, reference)
    other_repeats, other_bootstrap = front_area(other, reference)
    return _test(repeats - other_repeats, bootstrap - other_bootstrap)


def _test(repeats: np.ndarray, bootstrap: np.ndarray) -> Comparison:
    # One repeat has no variance between repeats: the interval is then over patients
    # only, and the p-value is NaN.
    once = len(repeats) == 1
    differences = np.repeat(repeats, 2) if once else repeats
    test = metrics.paired_test(jnp.asarray(differences), jnp.asarray(bootstrap))
    return Comparison(
        float(test.difference),
        float(test.lower),
        float(test.upper),
        float("nan") if once else float(test.p_value),
    )
