"""Evaluations of methods with intervals, and paired tests between methods.

Patients are resampled jointly for all methods and repeats, so that differences are
paired and patients who are in every repeat are not counted as new ones.
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
      null: metric -> its noise floor, its mean where the attributes mean nothing.
      corrected: metric -> the bias-corrected gap; NaN where no correction is defined.
      p_noise: metric -> p-value of no more than noise.

    Example:
      >>> one = Evaluation(
      ...     {"auroc": np.array([0.8, 0.82])}, {"auroc": np.array([0.79, 0.83])})
      >>> round(one.mean("auroc"), 3)
      0.81
    """

    repeats: Mapping[str, np.ndarray]
    bootstrap: Mapping[str, np.ndarray]
    null: Mapping[str, float] = field(default_factory=dict)
    corrected: Mapping[str, float] = field(default_factory=dict)
    p_noise: Mapping[str, float] = field(default_factory=dict)

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
    """The method's metric less the baseline's, paired over patients and repeats.

    The interval and the p-value are Student's, of the variance of the differences over
    resamples of patients plus that over repeats, divided by their number
    (:func:`fairjax.metrics.paired_test`). One repeat has no p-value.

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
    """A sum of methods' metrics with coefficients, paired over patients and repeats.

    The effect of a factor in a grid of methods, say, or an interaction of two.

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
    """Each method against the baseline, Holm-corrected over the methods.

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
    """The comparisons with p-values adjusted for their number, by Holm's method.

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
    """Hypervolume of (AUROC, mean gap) points: by repeat, and by resample.

    Args:
      points: The settings of a family.
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
    """How much more area one family's front dominates than another's.

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
