"""From out-of-fold predictions to metrics, their resamples and their noise floors.

Every metric of a method is the mean over repeats of that of the pooled predictions.
Which metrics there are is in `measures`, what they are compared by in `comparison`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from experiments.core import compiling, measures
from experiments.core.cohort import cohort
from experiments.core.comparison import Evaluation
from experiments.core.noise import noise
from experiments.core.protocol import CrossValidation
from experiments.core.sample import Sample
from fairjax import metrics


@dataclass(frozen=True, eq=False)
class Predictions:
    """One method at one setting, pooled so that each patient counts once a repeat.

    Attributes:
      name: The method.
      setting: The setting's label; empty where there is one only, ``"selected"``
        where validation chose it in each lane.
      scores: float32 ``[R, n]`` probabilities.
      decisions: bool ``[R, n]``, at whatever thresholds the system decides by; none
        may come from the patients that it is applied to. Or float32, the chances of
        decisions that are drawn; metrics are then exact expectations of them.
    """

    name: str
    setting: str
    scores: np.ndarray
    decisions: np.ndarray

    @property
    def title(self) -> str:
        """``name[setting]``, or ``name`` if there is one setting or a selected one."""
        plain = self.setting in ("", "selected")
        return self.name if plain else f"{self.name}[{self.setting}]"


class Evaluator:
    """Evaluates predictions on the patients of one cross-validation."""

    def __init__(
        self,
        splits: CrossValidation,
        *,
        num_bootstrap: int,
        num_permutations: int,
        seed: int,
        metric_names: Sequence[str] = measures.STANDARD,
        crossed: bool = False,
        weights: np.ndarray | None = None,
        references: Mapping[str, str] | None = None,
    ):
        """Draw the resamples that all methods share.

        Args:
          splits: The patients, their folds and their cells.
          num_bootstrap: Resamples of the patients.
          num_permutations: Shuffles for the noise floors.
          seed: Of both.
          metric_names: Some of `measures.KNOWN`.
          crossed: Compare the intersections of all attributes as one more attribute.
          weights: float32 ``[n]``, how many patients each stands for, such as the
            inverse probability of having been followed up. They multiply the weights
            of the resamples. Groups are large enough by the patients that there are.
          references: Attribute -> the level that its others are measured against.

        Raises:
          ValueError: An unknown metric, weights that are none, an attribute with
            fewer than two groups that can be compared, or a reference that is none.
        """
        self.splits = splits
        self.num_permutations = num_permutations
        self.key = jax.random.key(seed)
        self.cohort = cohort(splits, crossed=crossed, references=references)
        self._names = measures.checked(metric_names)
        self._own = None if weights is None else _checked_weights(weights, splits)
        patients = np.unique(splits.table.patient_ids, return_inverse=True)[1]
        drawn = metrics.patient_bootstrap_weights(
            jax.random.fold_in(self.key, 0),
            jnp.asarray(patients, jnp.int32),
            num_patients=int(patients.max()) + 1,
            num_replicates=num_bootstrap,
        ).astype(jnp.float32)
        self._weights = drawn if self._own is None else drawn * self._own
        # They run for every method, setting and repeat.
        in_full = compiling.in_full()
        self._measure = jax.jit(self._measure_repeat, compiler_options=in_full)
        self._noise = jax.jit(self._noise_repeat, compiler_options=in_full)

    def __call__(self, predictions: Predictions) -> Evaluation:
        """All metrics of one method."""
        points, samples, noises = [], [], []
        for repeat in range(self.splits.num_repeats):
            scores = jnp.asarray(predictions.scores[repeat])
            decisions = jnp.asarray(predictions.decisions[repeat])
            point, sample = self._measure(scores, decisions)
            points.append(point)
            samples.append(sample)
            key = jax.random.fold_in(self.key, repeat + 1)
            noises.append(self._noise(key, scores, decisions))
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
        """The metrics of one repeat, and of its resamples ``[B]``."""
        everyone = jnp.ones((1, scores.shape[0]), jnp.float32)
        if self._own is not None:
            everyone = everyone * self._own
        point, sample = (
            measures.measure(self._names, Sample(self.cohort, scores, decisions, mass))
            for mass in (everyone, self._weights)
        )
        return {k: v[0] for k, v in point.items()}, sample

    def _noise_repeat(self, key, scores, decisions):
        """The noise in one repeat's metrics of groups."""
        return noise(
            key,
            self._names,
            self.cohort,
            scores,
            decisions,
            self._own,
            self.num_permutations,
        )


def _checked_weights(weights: np.ndarray, splits: CrossValidation) -> jax.Array:
    given = np.asarray(weights, np.float32)
    rows = len(splits.table.label)
    if given.shape != (rows,):
        raise ValueError(
            f"there must be a weight for each of {rows:,} patients, not an array of "
            f"shape {given.shape}."
        )
    bad = int((~np.isfinite(given) | (given < 0)).sum())
    if bad or not given.any():
        raise ValueError(
            f"weights must be finite, at least 0 and not all 0; {bad} of {rows:,} are "
            "negative or not finite."
        )
    return jnp.asarray(given)


def _stack(rows: Sequence[Mapping[str, jax.Array]]) -> dict[str, np.ndarray]:
    return {k: np.stack([np.asarray(row[k]) for row in rows]) for k in rows[0]}
