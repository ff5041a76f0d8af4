"""Metrics, resamples and noise floors of out-of-fold predictions.

A method's metric is the mean over repeats of the metric of the pooled predictions.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fairjax import metrics
from fairjax.evaluation import _measures
from fairjax.evaluation._noise import noise
from fairjax.evaluation._sample import Sample
from fairjax.evaluation.cohorts import Cohort
from fairjax.evaluation.comparison import Evaluation
from fairjax.evaluation.names import STANDARD
from fairjax.keys import as_key


class Evaluator:
    """An evaluator of methods on one cohort, with resamples that all methods share.

    Example:
      >>> from fairjax import evaluation
      >>> cohort = evaluation.cohort([0, 1] * 20, {"site": ["a", "b", "b", "a"] * 10})
      >>> evaluator = Evaluator(
      ...     cohort, key=0, metric_names=["brier"], num_bootstrap=4,
      ...     num_permutations=4)
      >>> scores = np.tile(np.float32([0.25, 0.75]), (1, 20))
      >>> found = evaluator.evaluate(scores, scores > 0.5)
      >>> found.repeats["brier"].tolist(), found.bootstrap["brier"].tolist()
      ([0.0625], [0.0625, 0.0625, 0.0625, 0.0625])
    """

    def __init__(
        self,
        cohort: Cohort,
        *,
        num_bootstrap: int = 1000,
        num_permutations: int = 1000,
        key: jax.Array | int,
        metric_names: Sequence[str] = STANDARD,
        weights: Any = None,
        compiler_options: Mapping[str, Any] | None = None,
    ):
        """Draws the resamples that all methods share.

        Args:
          cohort: The patients and their compared groups.
          num_bootstrap: Resamples of the patients.
          num_permutations: Shuffles for the noise floors.
          key: A random key or seed, of resamples and shuffles.
          metric_names: The metrics; the error of an unknown name lists all metrics.
          weights: float32 ``[n]``, the number of patients that each row represents,
            such as the inverse probability of follow-up. Weights multiply the weights
            of the resamples. Minimal group sizes count rows, not weights.
          compiler_options: Options of ``jax.jit``, for the programs of every method.

        Raises:
          ValueError: If a metric is unknown, or weights are not ``[n]``, finite, at
            least 0 and not all 0.
        """
        self.cohort = cohort
        self.num_permutations = num_permutations
        self.key = as_key(key)
        self._names = _measures.checked(metric_names)
        rows = len(cohort.labels)
        self._given = None if weights is None else _checked_weights(weights, rows)
        patients = np.arange(rows) if cohort.patients is None else cohort.patients
        drawn = metrics.patient_bootstrap_weights(
            jax.random.fold_in(self.key, 0),
            jnp.asarray(patients, jnp.int32),
            num_patients=int(patients.max()) + 1,
            num_replicates=num_bootstrap,
        ).astype(jnp.float32)
        self._weights = drawn if self._given is None else drawn * self._given
        options: Any = compiler_options
        self._measure = jax.jit(self._measure_repeat, compiler_options=options)
        repeat = functools.partial(
            noise,
            names=self._names,
            cohort=cohort,
            weights=self._given,
            num_permutations=num_permutations,
        )
        self._noise = jax.jit(repeat, compiler_options=options)

    def evaluate(
        self, scores: np.ndarray | jax.Array, decisions: np.ndarray | jax.Array
    ) -> Evaluation:
        """Computes all metrics of one method.

        Args:
          scores: float32 ``[R, n]``, of R repeats.
          decisions: bool ``[R, n]``; or float32, probabilities of randomised decisions,
            whose metrics are exact expectations over the draws. A threshold must not
            come from the patients that the threshold is applied to.
        """
        points, samples, noises = [], [], []
        for repeat in range(len(scores)):
            given = jnp.asarray(scores[repeat]), jnp.asarray(decisions[repeat])
            point, sample = self._measure(*given)
            points.append(point)
            samples.append(sample)
            key = jax.random.fold_in(self.key, repeat + 1)
            noises.append(self._noise(key, *given))
        bootstrap = {k: v.mean(axis=0) for k, v in _stack(samples).items()}
        floor, corrected, p_noise = (
            {k: float(v.mean()) for k, v in _stack(kind).items()}
            for kind in zip(*noises, strict=True)
        )
        return Evaluation(
            repeats=_stack(points),
            bootstrap=bootstrap,
            null=floor,
            corrected=corrected,
            # Twice the mean of dependent p-values is a valid p-value.
            p_noise={k: float(np.minimum(1, 2 * p)) for k, p in p_noise.items()},
        )

    def _measure_repeat(self, scores, decisions):
        """Returns the metrics of one repeat, and of its resamples ``[B]``."""
        everyone = jnp.ones((1, scores.shape[0]), jnp.float32)
        if self._given is not None:
            everyone = everyone * self._given
        point, sample = (
            _measures.measure(self._names, Sample(self.cohort, scores, decisions, mass))
            for mass in (everyone, self._weights)
        )
        return {k: v[0] for k, v in point.items()}, sample


def measure(
    cohort: Cohort,
    metric_names: Sequence[str],
    scores: jax.Array | np.ndarray,
    decisions: jax.Array | np.ndarray,
    weights: jax.Array | np.ndarray,
) -> dict[str, jax.Array]:
    """Computes the metrics of one repeat's predictions under B weightings.

    Args:
      cohort: The patients.
      metric_names: As for :class:`Evaluator`.
      scores: float32 ``[n]``.
      decisions: bool ``[n]``, or probabilities of a positive decision.
      weights: float32 ``[B, n]``, such as 1 for the rows of a split and 0 for others.

    Returns:
      Full name of a metric -> ``[B]``.

    Raises:
      ValueError: If a metric is unknown.

    Example:
      >>> from fairjax import evaluation
      >>> cohort = evaluation.cohort([0, 1] * 20, {"site": ["a", "b", "b", "a"] * 10})
      >>> scores = np.tile(np.float32([0.25, 0.75]), 20)
      >>> everyone = np.ones((1, 40), np.float32)
      >>> evaluation.measure(cohort, ["brier"], scores, scores > 0.5, everyone)
      {'brier': Array([0.0625], dtype=float32)}
    """
    given = (jnp.asarray(x) for x in (scores, decisions, weights))
    return _measures.measure(_measures.checked(metric_names), Sample(cohort, *given))


def _checked_weights(weights: Any, rows: int) -> jax.Array:
    given = np.asarray(weights, np.float32)
    if given.shape != (rows,):
        raise ValueError(
            f"weights must have the shape ({rows},), one for each row; got "
            f"{given.shape}."
        )
    bad = int((~np.isfinite(given) | (given < 0)).sum())
    if bad or not given.any():
        raise ValueError(
            f"weights must be finite, at least 0 and not all 0; got {bad:,} of "
            f"{rows:,} that are negative or not finite."
        )
    return jnp.asarray(given)


def _stack(rows: Sequence[Mapping[str, jax.Array]]) -> dict[str, np.ndarray]:
    return {k: np.stack([np.asarray(row[k]) for row in rows]) for k in rows[0]}
