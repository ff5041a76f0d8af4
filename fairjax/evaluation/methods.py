"""Comparison of methods on one cohort, from their out-of-fold scores to tables."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pandas as pd

from fairjax.evaluation.cohorts import Cohort
from fairjax.evaluation.comparison import Evaluation, compare_all
from fairjax.evaluation.evaluator import Evaluator
from fairjax.evaluation.names import STANDARD

_INDEX = ["metric", "method"]
_VALUES = ("value", "lower", "upper")
_DIFFERENCES = ("difference", "lower", "upper", "p_value", "adjusted_p_value")


@dataclass(frozen=True, eq=False)
class MethodComparison:
    """Metrics, gaps and differences from a baseline of methods on one cohort.

    All tables are indexed by metric and method; intervals are 95 %.

    Attributes:
      baseline: The method that all other methods are compared with.
      evaluations: Method -> its evaluation.
      metrics: Columns ``value``, ``lower`` and ``upper``.
      gaps: The metrics of groups that have a noise floor. Columns ``value``, ``lower``,
        ``upper``; ``noise_floor``, the mean where the attributes have no effect;
        ``corrected``, the value less its bias; ``p_noise``, the one-sided p-value of
        the hypothesis that the attributes have no effect. ``corrected`` is NaN for
        weighted rates and for AUROCs.
      differences: Every other method less the baseline. Columns ``difference``,
        ``lower``, ``upper``, ``p_value`` and ``adjusted_p_value``, by Holm over the
        methods of each metric; p-values of a single repeat are NaN.
    """

    baseline: str
    evaluations: Mapping[str, Evaluation]
    metrics: pd.DataFrame
    gaps: pd.DataFrame
    differences: pd.DataFrame

    def figure(self, metric_names: Sequence[str] | None = None) -> Any:
        """Draws metrics of all methods with intervals and noise floors.

        Args:
          metric_names: Full names, one panel each; by default all gaps with a noise
            floor.

        Returns:
          A Matplotlib figure.

        Raises:
          ModuleNotFoundError: If Matplotlib is missing (extra ``audit``).
          ValueError: If a metric was not evaluated, or no metric is given.
        """
        from fairjax.evaluation import figures

        known = list(self.metrics.index.unique("metric"))
        floors = list(self.gaps.index.unique("metric"))
        chosen = floors if metric_names is None else list(metric_names)
        unknown = [name for name in chosen if name not in known]
        if unknown or not chosen:
            raise ValueError(
                f"metric_names must be some of {', '.join(known)}; got "
                f"{', '.join(unknown) or 'none'}."
            )
        panels = {name.replace("/", "\n"): name for name in chosen}
        return figures.gaps(
            self.evaluations, panels, title="95 % intervals", label="value"
        )


def compare_methods(
    cohort: Cohort,
    scores: Mapping[str, Any],
    *,
    baseline: str,
    key: jax.Array | int,
    thresholds: Any = 0.5,
    metric_names: Sequence[str] = STANDARD,
    weights: Any = None,
    num_bootstrap: int = 1000,
    num_permutations: int = 1000,
) -> MethodComparison:
    r"""Compares methods by their out-of-fold scores, of any models.

    A metric is the mean over repeats of the metric of the scores pooled over folds. Its
    variance is the variance over resamples of patients, drawn once for all methods and
    repeats, plus the variance over repeats divided by the number of repeats,

    .. math:: \sigma^2 = \sigma_\text{patients}^2 + \sigma_\text{repeats}^2 / R,

    and intervals and paired tests are Student's with Satterthwaite's degrees of
    freedom. A noise floor is the mean of a gap after groups exchange rows of equal
    outcomes (any two rows for demographic parity).

    Args:
      cohort: From :func:`cohort`.
      scores: Method -> its scores, of NumPy, JAX or PyTorch on the CPU. The shape is
        ``[n]`` for one repeat, ``[R, n]`` pooled out of fold, or ``[R, folds, n]``;
        then each row takes the score of its test fold (:func:`out_of_fold`). Scores
        are higher for patients who are more likely to have the outcome; the Brier score
        needs probabilities.
      baseline: The method that all other methods are compared with.
      key: A random key or seed, of resamples and shuffles.
      thresholds: Scores at or above the threshold are decided as 1. Thresholds are one
        number, an array of the scores' leading axes, such as ``[R, folds]``, or of all
        axes, or a mapping from method to either. A threshold must not come from the
        patients that the threshold is applied to.
      metric_names: The metrics; the error of an unknown name lists all metrics.
      weights: ``[n]``, the number of patients that each row represents; 1 by default.
      num_bootstrap: Resamples of patients, at least 2.
      num_permutations: Shuffles of the noise floors, at least 2. Rows are shuffled, so
        the floors of cohorts with several rows per patient are too low.

    Raises:
      ValueError: If there are fewer than two methods; if ``baseline`` is not a method;
        if scores or thresholds have a wrong shape; if rows have no score; if scores for
        a Brier score are outside [0, 1]; if a metric is unknown; if weights are not
        ``[n]``, finite, at least 0 and not all 0.

    Example:
      >>> from fairjax import evaluation
      >>> labels, sites = np.tile([0, 1], 40), np.repeat(["a", "b"], 40)
      >>> good, poor = np.where(labels, 0.9, 0.2), np.where(sites == "a", 0.9, 0.2)
      >>> found = compare_methods(
      ...     evaluation.cohort(labels, {"site": sites}),
      ...     {"good": [good, good], "poor": [poor, poor]},
      ...     baseline="good",
      ...     key=0,
      ...     metric_names=["accuracy"],
      ...     num_bootstrap=5,
      ...     num_permutations=5,
      ... )
      >>> float(found.differences.loc[("accuracy", "poor"), "difference"])
      -0.5
    """
    if len(scores) < 2:
        raise ValueError(
            "scores must have two methods or more, the baseline and one to compare "
            f"with it; got {', '.join(scores) or 'none'}."
        )
    if baseline not in scores:
        raise ValueError(
            f"baseline must be one of the methods {', '.join(scores)}; got {baseline}."
        )
    counts: Any = {"num_bootstrap": num_bootstrap, "num_permutations": num_permutations}
    for option, value in counts.items():
        if value < 2:
            raise ValueError(f"{option} must be 2 or more; got {value}.")
    pooled = {
        name: _pooled(name, given, cohort, thresholds, metric_names)
        for name, given in scores.items()
    }
    repeats = {name: len(found) for name, (found, _) in pooled.items()}
    if len(set(repeats.values())) > 1:
        listed = ", ".join(f"{name} {number}" for name, number in repeats.items())
        raise ValueError(
            f"all methods must have the same repeats, to be compared in pairs; got "
            f"{listed}."
        )
    evaluator = Evaluator(
        cohort, key=key, metric_names=metric_names, weights=weights, **counts
    )
    evaluations = {
        name: evaluator.evaluate(found.astype(np.float32), decisions)
        for name, (found, decisions) in pooled.items()
    }
    some = evaluations[baseline]
    tests = {m: compare_all(evaluations, baseline, m) for m in some.repeats}
    values = {
        (m, name): (e.mean(m), *e.interval(m))
        for m in some.repeats
        for name, e in evaluations.items()
    }
    gaps = {
        (m, name): (*values[m, name], e.null[m], e.corrected[m], e.p_noise[m])
        for m in some.null
        for name, e in evaluations.items()
    }
    differences = {
        (m, name): (c.difference, c.low, c.high, c.p, c.p_holm)
        for m, found in tests.items()
        for name, c in found.items()
    }
    return MethodComparison(
        baseline=baseline,
        evaluations=evaluations,
        metrics=_table(_VALUES, values),
        gaps=_table((*_VALUES, "noise_floor", "corrected", "p_noise"), gaps),
        differences=_table(_DIFFERENCES, differences),
    )


def out_of_fold(scores: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Returns the score of each row from its test fold, ``[..., R, n]``.

    Args:
      scores: ``[..., R, folds, n]``, scores by the model of each repeat and fold; rows
        that a fold does not test may be NaN.
      folds: Integers ``[R, n]``, the test fold of each row in each repeat.

    Example:
      >>> scores = np.array([[[0.1, 0.2, 0.3], [0.6, 0.7, 0.8]]])
      >>> out_of_fold(scores, np.array([[0, 1, 0]]))
      array([[0.1, 0.7, 0.3]])
    """
    repeats, rows = folds.shape
    return scores[..., np.arange(repeats)[:, None], folds, np.arange(rows)]


def _pooled(
    name: str,
    given: Any,
    cohort: Cohort,
    thresholds: Any,
    metric_names: Collection[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a method's scores and decisions, ``[R, n]`` both."""
    rows = len(cohort.labels)
    scores = np.atleast_2d(np.asarray(given, np.float64))
    folds = cohort.folds
    if scores.ndim == 3 and folds is None:
        raise ValueError(
            f"scores of {name!r} must be [repeats, rows] without folds; got shape "
            f"{scores.shape}. Give the cohort folds, or pool the scores."
        )
    by_fold = (0, 0) if folds is None else (len(folds), int(folds.max()) + 1)
    if scores.shape[-1] != rows or (
        scores.ndim != 2 and scores.shape != (*by_fold, rows)
    ):
        shapes = f"[{rows}], [repeats, {rows}]"
        if folds is not None:
            shapes += f" or [{by_fold[0]}, {by_fold[1]}, {rows}]"
        raise ValueError(
            f"scores of {name!r} must have the shape {shapes}; got {np.shape(given)}."
        )
    decisions = scores >= _thresholds(name, scores, thresholds)
    if folds is not None and scores.ndim == 3:
        scores, decisions = (out_of_fold(x, folds) for x in (scores, decisions))
    absent = np.argwhere(~np.isfinite(scores))
    if len(absent):
        repeat, row = absent[0].tolist()
        raise ValueError(
            f"scores of {name!r} must be finite for every row; got NaN or infinity for "
            f"{len(absent):,} of {scores.size:,}, row {row} of repeat {repeat} first. "
            "Predict every row once in each repeat."
        )
    if "brier" in metric_names and (scores.min() < 0 or scores.max() > 1):
        raise ValueError(
            f"scores of {name!r} must be probabilities in [0, 1] for the Brier score; "
            f"got {scores.min():.4g} to {scores.max():.4g}. Convert them, or leave "
            '"brier" out of metric_names.'
        )
    return scores, decisions


def _thresholds(name: str, scores: np.ndarray, given: Any) -> np.ndarray:
    """Returns thresholds that broadcast against scores."""
    if isinstance(given, Mapping):
        if name not in given:
            raise ValueError(
                f"thresholds must have every method, also {name!r}; got thresholds of "
                f"{', '.join(given) or 'none'}."
            )
        given = given[name]
    found = np.asarray(given, np.float64)
    if found.shape != scores.shape[: found.ndim] or np.isnan(found).any():
        raise ValueError(
            f"thresholds of {name!r} must be one number or an array of the scores' "
            f"leading axes {scores.shape}, without NaN; got shape {found.shape}."
        )
    return found.reshape(found.shape + (1,) * (scores.ndim - found.ndim))


def _table(columns: Sequence[str], rows: Mapping[tuple, tuple]) -> pd.DataFrame:
    found = [(*keys, *values) for keys, values in rows.items()]
    frame = pd.DataFrame(found, columns=pd.Index([*_INDEX, *columns]))
    return frame.set_index(_INDEX)
