"""Repair and equal rates against AIF360, and the reduction against fairlearn's."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from experiments.bench import aif360_mitigation, timing
from experiments.bench.timing import Cell, clocked
from fairjax import mitigation
from fairjax.mitigation.distances import distribution_distances

# Both libraries stop at this gap to the best mixture of their classifiers. As these
# classifiers differ, errors and violations are reported too.
GAP = 1e-3


@dataclass(frozen=True)
class Row(timing.Row):
    """One task.

    Attributes:
      task: Name of the task.
      rows: Number of rows.
      features: Number of features; 0 if the task reads no features.
      groups: Number of groups.
      milliseconds: Our time, the median over rounds.
      first_seconds: Time of our first call, including compilation.
      reached: Our result.
      of: Quantity of the results; less is better.
      against: The other library.
      their_seconds: The other library's time, the median over rounds.
      ratio: The other library's time over ours, the median over rounds.
      their_reached: The other library's result.
    """

    task: Annotated[str, Cell("task")]
    rows: Annotated[int, Cell("rows", ",")]
    features: Annotated[int, Cell("features", of=lambda row: row.features or None)]
    groups: Annotated[int, Cell("groups")]
    milliseconds: Annotated[float, Cell("ms", ".1f")]
    first_seconds: Annotated[float, Cell("first s", ".1f")]
    reached: float
    of: str
    against: Annotated[str, Cell("against")] = "-"
    their_seconds: Annotated[float | None, Cell("theirs s", ".3f")] = None
    ratio: Annotated[float | None, Cell("ratio", ",.1f")] = None
    their_reached: Annotated[
        float | None,
        Cell("ours reaches", ".4f", of=lambda row: row.reached),
        Cell("theirs reaches", ".4f"),
        Cell("of", of=lambda row: row.of, left=True),
    ] = None


def measured(
    task: tuple[str, int, int, int],
    ours: Callable[[], Any],
    theirs: Callable[[], Any] | None,
    reached: Callable[[Any], float],
    *,
    rounds: int,
    against: str = "AIF360",
    of: str | Callable[[dict[str, Any]], str],
) -> Row:
    """Calls both libraries in turns, and compares times and results.

    Args:
      task: Name of the task, and its numbers of rows, features and groups.
      ours: Our call.
      theirs: The other library's call, if there is one.
      reached: Computes the result from the return value of a call.
      rounds: Times that both libraries are called.
      against: The other library.
      of: Quantity of the results; may be a function of both libraries' return values.
    """
    found, last = clocked(ours, theirs, rounds)
    compared: dict[str, Any] = {}
    if theirs is not None:
        compared = {"against": against, "their_reached": reached(last["theirs"])}
    what = of if isinstance(of, str) else of(last)
    return Row(*task, reached=reached(last["ours"]), of=what, **compared, **found)


def table_of(rows: int, features: int, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws features whose location and scale differ between groups."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, groups, rows)
    place = 0.5 * rng.standard_normal((groups, features))
    width = np.exp(0.2 * rng.standard_normal((groups, features)))
    return place[group] + width[group] * rng.standard_normal((rows, features)), group


def outcomes_of(rows: int, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws labels, scores and groups, where rarer outcomes are harder to predict."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, groups, rows)
    worse = group / groups
    label = (rng.random(rows) < 0.5 - 0.3 * worse).astype(np.int64)
    score = (1.5 - worse) * label - 0.7 + rng.standard_normal(rows)
    return label, score, group


def measure_repair(
    rows: int, features: int, groups: int, *, rounds: int, aif360: bool
) -> Row:
    """Measures the disparate impact remover, fit and transform, against AIF360's."""
    values, group = table_of(rows, features, groups)

    def largest_distance(repaired: Any) -> float:
        repaired = np.asarray(repaired)
        found, _ = distribution_distances(repaired, group, num_groups=groups)
        return float(found.max())

    return measured(
        ("disparate impact remover", rows, features, groups),
        lambda: mitigation.DisparateImpactRemover().fit_transform(
            values, sensitive_features=group
        ),
        aif360_mitigation.repair(values, group) if aif360 else None,
        largest_distance,
        rounds=rounds,
        of="largest KS distance of two groups",
    )


def measure_odds(
    rows: int, *, rounds: int, aif360: bool = False, groups: int | None = None
) -> Row:
    """Measures equalized odds, for hard decisions in two groups or for scores.

    Args:
      rows: Number of rows.
      rounds: Times that both libraries are called.
      aif360: Whether to compare decisions with AIF360, which has no rule for scores.
      groups: Number of groups with scores; None for decisions in two groups.
    """
    number = groups or 2
    labels, scores, group = outcomes_of(rows, number)
    theirs = None
    if groups is None:
        scores = (scores >= 0).astype(np.float64)
        if aif360:
            theirs = aif360_mitigation.equal_odds(labels, scores, group)

    def ours() -> float:
        return mitigation.equal_rate_rules(
            labels, scores, group, num_groups=number, objective="balanced_error"
        ).cost

    task = f"equalized odds of {'scores' if groups else 'decisions'}"
    return measured(
        (task, rows, 0, number),
        ours,
        theirs,
        float,
        rounds=rounds,
        of="mean of false positive and false negative rate",
    )


def measure_reduction(rows: int, features: int, groups: int, *, rounds: int) -> Row:
    """Measures exponentiated gradient around logistic regression, to the same gap."""
    values, group = table_of(rows, features, groups)
    rng = np.random.default_rng(1)
    slope = 0.5 * rng.standard_normal(features)
    chance = 1 / (1 + np.exp(-values @ slope - 0.2 * (group - groups / 2)))
    label = (rng.random(rows) < chance).astype(np.int64)
    values = (values - values.mean(axis=0)) / values.std(axis=0)

    def fit(estimator: Any) -> mitigation.ExponentiatedGradient:
        fair = mitigation.ExponentiatedGradient(
            estimator, gap_tolerance=GAP, random_state=0
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "no mixture of the learner's")
            return fair.fit(values, label, sensitive_features=group)

    def reached_besides(last: dict[str, mitigation.ExponentiatedGradient]) -> str:
        gaps, missed = (
            ", ".join(f"{getattr(fair, name):.4f}" for fair in last.values())
            for name in ("best_gap_", "violation_")
        )
        return f"error; gaps {gaps}; bound missed by {missed}"

    return measured(
        ("reduction, logistic regression", rows, features, groups),
        lambda: fit(mitigation.FlaxClassifier()),
        lambda: fit(LogisticRegression()),
        lambda fair: fair.cost_,
        rounds=rounds,
        against="fairlearn",
        of=reached_besides,
    )
