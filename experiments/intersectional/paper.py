"""The paper's protocol, and metrics of single splits of either protocol.

Half of the patients train, 40 % test the models, and the last 10 % test equalized odds,
whose rules come from the 40 %. So configurations with and without equalized odds are
evaluated on different patients, as the authors concede. The paper does not say where
thresholds came from. Here they come from the 10 %, so that no decision is evaluated on
patients from whom its threshold came.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from experiments.datasets import encode_splits, patient_folds
from experiments.intersectional.groups import Composite
from experiments.intersectional.models import Division
from experiments.intersectional.results import METRICS, Options, PerSplit
from experiments.intersectional.stages import Configuration, decide
from fairjax.evaluation import Cohort, limits, measure

# Tenths of the patients.
_TENTHS, _TRAIN, _TEST = 10, 5, 4


class Parts(NamedTuple):
    """Rows of the parts of one split, bool ``[n]`` each."""

    train: np.ndarray
    test: np.ndarray
    last: np.ndarray


def paper_splits(
    composite: Composite, number: int, seed: int
) -> tuple[Division, list[Parts]]:
    """Makes random splits by patient, with inputs encoded on their training rows."""
    parts = paper_parts(composite, number, seed)
    trains = [np.flatnonzero(part.train) for part in parts]
    inputs = encode_splits(composite.table, trains)
    return Division("paper", composite, inputs, trains), parts


def paper_parts(composite: Composite, number: int, seed: int) -> list[Parts]:
    """Makes random splits by patient, stratified by subgroup and outcome."""
    table = composite.table
    parts = []
    for split in range(number):
        tenth = patient_folds(
            table.patient_ids,
            table.label,
            table.attributes,
            num_folds=_TENTHS,
            seed=seed + split,
        )
        test = (tenth >= _TRAIN) & (tenth < _TRAIN + _TEST)
        parts.append(Parts(tenth < _TRAIN, test, tenth >= _TRAIN + _TEST))
    return parts


def evaluate_paper(
    wanted: Sequence[Configuration],
    scores: Mapping[str, np.ndarray],
    parts: Sequence[Parts],
    composite: Composite,
    cohort: Cohort,
    options: Options,
) -> PerSplit:
    """Evaluates every configuration in every split, on the rows that the paper uses.

    Args:
      wanted: The configurations.
      scores: Name of a model -> ``[S, n]``.
      parts: Parts of the splits.
      composite: The subgroups.
      cohort: The cohort for the metrics.
      options: Options of the run.
    """
    measure = measurer(cohort)
    values: dict[str, dict[str, np.ndarray]] = {}
    overlap = {}
    for configuration in wanted:
        rows = []
        for own, part in zip(scores[configuration.model], parts, strict=True):
            held, tested = part.last, part.test
            if configuration.equalized:
                held, tested = tested, held
            probability = decide(
                configuration,
                own,
                np.asarray(composite.table.label),
                composite.codes,
                held,
                num_groups=len(composite.levels),
                by_group=options.thresholds == "group",
                objective=options.objective,
            )
            given = probability if configuration.equalized else own
            rows.append(measure(given, probability, tested[None]))
        name = configuration.name
        values[name] = {k: np.concatenate([row[k] for row in rows]) for k in rows[0]}
        tested = _TENTHS - _TRAIN - _TEST if configuration.equalized else _TEST
        overlap[name] = tested / _TRAIN
    return PerSplit(values, overlap)


def measurer(cohort: Cohort) -> Callable[..., dict[str, np.ndarray]]:
    """Makes ``measure(scores [n], decisions [n], rows [S, n]) -> metric -> [S]``.

    The metrics are the clean protocol's metrics, over some of the rows; ``decisions``
    are probabilities of selection.
    """

    @jax.jit
    def compiled(scores, decisions, rows):
        return measure(cohort, METRICS, scores, decisions, rows.astype(jnp.float32))

    def of_rows(scores, decisions, rows):
        # Rows that are not measured may have no score.
        known = [np.nan_to_num(x).astype(np.float32) for x in (scores, decisions)]
        found = compiled(*known, np.asarray(rows))
        return {name: np.asarray(value) for name, value in found.items()}

    return of_rows


class SplitMean(NamedTuple):
    """The mean over splits, with a 95 % interval within the metric's range.

    Attributes:
      mean: The mean; NaN without any split.
      low: Lower end; NaN with fewer than two splits.
      high: Upper end; NaN with fewer than two splits.
      splits: Number of splits in which the metric is defined.
    """

    mean: float
    low: float
    high: float
    splits: int


def over_splits(values: np.ndarray, overlap: float, metric: str) -> SplitMean:
    r"""Computes the mean over splits that share patients, with its interval.

    Splits that share training patients vary less than splits of new patients would. By
    Nadeau and Bengio (2003), the variance of the mean is
    :math:`s^2 (1/S + n_{test}/n_{train})`.

    Args:
      values: ``[S]``; NaN for splits in which the metric is undefined, which are left
        out.
      overlap: :math:`n_{test}/n_{train}`.
      metric: Full name of the metric, whose range limits the interval.

    Example:
      >>> found = over_splits(np.array([0.1, 0.2, 0.3]), 0.8, "f1_score")
      >>> round(found.mean, 3), round(found.high - found.mean, 3), found.low
      (0.2, 0.458, 0.0)
    """
    known = values[np.isfinite(values)]
    number = len(known)
    if not number:
        return SplitMean(math.nan, math.nan, math.nan, 0)
    mean = float(known.mean())
    if number < 2:
        return SplitMean(mean, math.nan, math.nan, number)
    error = math.sqrt(known.var(ddof=1) * (1 / number + overlap))
    reach = float(stats.t.ppf(0.975, number - 1)) * error
    low, high = limits(metric)
    return SplitMean(mean, max(mean - reach, low), min(mean + reach, high), number)
