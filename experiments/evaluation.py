"""From out-of-fold predictions to metrics, intervals, noise floors and tests.

Every metric of a method is the mean over repeats of that of the pooled predictions.
Patients are resampled jointly for all methods and repeats, so that differences are
paired and patients who are in every repeat are not counted as new ones.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from experiments.protocol import CrossValidation
from fairjax import metrics
from fairjax.metrics import GroupCounts

MIN_SUPPORT = 10
WORST_GROUP_SUPPORT = 50
GAP = "equalized_odds_difference"
SUMMARIES = ("mean", "worst")


@dataclass(frozen=True, eq=False)
class Predictions:
    """One method at one setting, pooled so that each patient counts once a repeat.

    Attributes:
      name: The method.
      setting: The setting's label; empty where there is one only, ``"selected"``
        where validation chose it in each lane.
      scores: float32 ``[R, n]`` probabilities.
      decisions: bool ``[R, n]``, at thresholds from the validation folds.
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


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The metrics of one method.

    Attributes:
      repeats: metric -> ``[R]``.
      bootstrap: metric -> ``[B]``, means over repeats for each resample of patients.
      null: attribute (and summaries) -> the noise floor of the gap.
      corrected: attribute (and summaries) -> the bias-corrected gap.
      p_noise: attribute (and summaries) -> p-value of no more than noise.
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
        return max(test.low, 0.0), min(test.high, 1.0)


@dataclass(frozen=True)
class Comparison:
    """A paired difference: its interval and its p-value, before and after Holm."""

    difference: float
    low: float
    high: float
    p: float
    p_holm: float = float("nan")


def gap_metrics(attributes: Sequence[str]) -> tuple[str, ...]:
    """The names of the gaps: each attribute's, their mean, and the worst."""
    return tuple(f"{GAP}/{name}" for name in (*attributes, *SUMMARIES))


class Evaluator:
    """Evaluates predictions on the patients of one cross-validation."""

    def __init__(
        self,
        splits: CrossValidation,
        *,
        num_bootstrap: int,
        num_permutations: int,
        seed: int,
    ):
        """Draw the resamples that all methods share.

        Raises:
          ValueError: An attribute with fewer than two groups that can be compared.
        """
        self.splits = splits
        self.num_permutations = num_permutations
        self.key = jax.random.key(seed)
        patients = np.unique(splits.table.patient_ids, return_inverse=True)[1]
        weights = metrics.patient_bootstrap_weights(
            jax.random.fold_in(self.key, 0),
            jnp.asarray(patients, jnp.int32),
            num_patients=int(patients.max()) + 1,
            num_replicates=num_bootstrap,
        )
        self._weights = weights.astype(jnp.float32)
        self._labels = jnp.asarray(splits.table.label, jnp.int32)
        self._groups = {
            a: jnp.asarray(self._members(a)[splits.cells]) for a in splits.attributes
        }
        self._sizes = {
            a: len(splits.partition.membership(a)[0]) for a in splits.attributes
        }
        # Once, from all patients: a resample may not change who is compared.
        self._compared = {a: self._enough(a, MIN_SUPPORT) for a in splits.attributes}
        for attribute, enough in self._compared.items():
            if enough.sum() < 2:
                raise ValueError(
                    f"attribute {attribute!r} has {enough.sum()} levels with "
                    f"{MIN_SUPPORT} patients of each outcome or more; a gap needs two. "
                    "Leave it out with --attributes."
                )
        self._judged = jnp.asarray(self._large_intersections())
        self._measure = jax.jit(self._measure_repeat)
        self._noise = jax.jit(self._noise_repeat)

    def _members(self, attributes: str | Sequence[str]) -> np.ndarray:
        """The group of each cell."""
        return self.splits.partition.membership(attributes)[1].argmax(axis=0)

    def _enough(self, attributes: str | Sequence[str], support: int) -> np.ndarray:
        """Which groups have so many patients of each outcome, bool ``[G]``."""
        names, _ = self.splits.partition.membership(attributes)
        group = self._members(attributes)[self.splits.cells]
        outcome = self.splits.table.label.astype(int)
        counts = np.bincount(2 * group + outcome, minlength=2 * len(names))
        return np.all(counts.reshape(-1, 2) >= support, axis=1)

    def _gap(self, attribute: str) -> Callable[[GroupCounts], jax.Array]:
        """The equalized-odds difference of an attribute's compared groups."""
        valid = jnp.asarray(self._compared[attribute])

        def gap(counts):
            rates = (
                metrics.true_positive_rate(counts),
                metrics.false_positive_rate(counts),
            )
            return jnp.maximum(*(metrics.difference(rate, valid) for rate in rates))

        return gap

    def _large_intersections(self) -> np.ndarray:
        """Rows of the intersections with enough of both outcomes, filled up by -1."""
        attributes = self.splits.attributes
        group = self._members(attributes)[self.splits.cells]
        judged = np.flatnonzero(self._enough(attributes, WORST_GROUP_SUPPORT))
        found = [np.flatnonzero(group == g) for g in judged]
        rows = np.full((len(found), max(map(len, found), default=0)), -1, np.int32)
        for row, members in zip(rows, found, strict=True):
            row[: len(members)] = members
        return rows

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
            noises.append(self._noise(key, decisions))
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
        point = {k: v[0] for k, v in self._metrics(scores, decisions, everyone).items()}
        return point, self._metrics(scores, decisions, self._weights)

    def _metrics(self, scores, decisions, weights):
        """Metrics ``[B]`` under weights ``[B, n]``."""
        order = metrics.score_order(scores)
        auroc = jax.vmap(metrics.auroc_from_order, in_axes=(None, None, 0))
        squares = (scores - self._labels) ** 2
        everyone = jnp.zeros_like(self._labels)
        total = self._counts(everyone, 1, decisions, weights)
        gaps = {
            attribute: self._gap(attribute)(
                self._counts(groups, self._sizes[attribute], decisions, weights)
            )
            for attribute, groups in self._groups.items()
        }
        stacked = jnp.stack(list(gaps.values()))
        gaps |= {"mean": stacked.mean(axis=0), "worst": stacked.max(axis=0)}
        return {
            "auroc": auroc(order, self._labels, weights),
            "worst_group_auroc": self._worst_group(scores, weights),
            "balanced_accuracy": metrics.balanced_accuracy(total)[:, 0],
            "brier": weights @ squares / weights.sum(axis=1),
            **{f"{GAP}/{name}": gap for name, gap in gaps.items()},
        }

    def _counts(self, groups, num_groups, decisions, weights):
        """Counts ``[B, G, 2, 2]`` under weights ``[B, n]``, as one matrix product."""
        entry = 4 * groups + 2 * self._labels + decisions
        table = weights @ jax.nn.one_hot(entry, 4 * num_groups)
        return GroupCounts(table.reshape(-1, num_groups, 2, 2))

    def _worst_group(self, scores, weights):
        """The lowest AUROC ``[B]`` over intersections with enough of both outcomes."""

        def one(rows):
            order = metrics.score_order(scores[rows])
            # Rows of -1 fill up: they are the last patient's, without weight.
            mass = jnp.where(rows < 0, 0, weights[:, rows])
            auroc = jax.vmap(metrics.auroc_from_order, in_axes=(None, None, 0))
            return auroc(order, self._labels[rows], mass)

        if not len(self._judged):
            return jnp.full(weights.shape[0], jnp.nan)
        return jax.lax.map(one, self._judged).min(axis=0)

    def _noise_repeat(self, key, decisions):
        """Noise floor, corrected gap and p-value of each attribute's gap.

        And of their mean and of the worst: each attribute is shuffled, and its counts
        are redrawn, by itself, draw by draw; so the worst is the worst of a draw.
        """
        nulls, gaps = [], []
        for number, (attribute, groups) in enumerate(self._groups.items()):
            one, two = jax.random.split(jax.random.fold_in(key, number))
            size = self._sizes[attribute]
            null = metrics.permutation_null(
                one,
                self._labels,
                decisions,
                groups,
                num_groups=size,
                num_permutations=self.num_permutations,
                statistic=self._gap(attribute),
            )
            counts = metrics.group_counts(
                self._labels, decisions, groups, num_groups=size
            )
            gap = metrics.bias_corrected_gap(
                two,
                counts,
                num_replicates=self.num_permutations,
                statistic=self._gap(attribute),
            )
            nulls.append(null)
            gaps.append(gap)
        floor = {a: n.mean for a, n in zip(self._groups, nulls, strict=True)}
        p_value = {a: n.p_value for a, n in zip(self._groups, nulls, strict=True)}
        corrected = {a: g.corrected for a, g in zip(self._groups, gaps, strict=True)}
        raw, at_rates = (
            jnp.stack([getattr(g, kind) for g in gaps]) for kind in ("raw", "at_rates")
        )
        redrawn = jnp.stack([g.replicates for g in gaps])
        shuffled = jnp.stack([n.null for n in nulls])
        for name, summary in (("mean", jnp.mean), ("worst", jnp.max)):
            noise = summary(shuffled, axis=0)
            floor[name] = noise.mean()
            p_value[name] = metrics.permutation_p_value(summary(raw), noise)
        corrected["mean"] = jnp.stack([g.corrected for g in gaps]).mean()
        bias = redrawn.max(axis=0).mean() - at_rates.max()
        corrected["worst"] = jnp.maximum(raw.max() - bias, 0)
        return floor, corrected, p_value


def compare(method: Evaluation, baseline: Evaluation, metric: str) -> Comparison:
    """The method's metric less the baseline's, paired over patients and repeats."""
    return _test(
        method.repeats[metric] - baseline.repeats[metric],
        method.bootstrap[metric] - baseline.bootstrap[metric],
    )


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


def holm(found: Mapping[str, Comparison]) -> dict[str, Comparison]:
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
    area = jax.vmap(metrics.hypervolume, in_axes=(0, None))
    corner = jnp.array(reference)

    def areas(kind):
        stacked = [
            np.stack([getattr(p, kind)["auroc"], getattr(p, kind)[f"{GAP}/mean"]], -1)
            for p in points
        ]
        return np.asarray(area(jnp.asarray(np.stack(stacked, axis=1)), corner))

    return areas("repeats"), areas("bootstrap")


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


def _stack(rows: Sequence[Mapping[str, jax.Array]]) -> dict[str, np.ndarray]:
    return {k: np.stack([np.asarray(row[k]) for row in rows]) for k in rows[0]}
