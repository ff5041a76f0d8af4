"""Repair and equal rates beside AIF360's: what they take, and what they reach."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from experiments.bench import aif360_mitigation, timing
from experiments.bench.timing import Cell, clocked
from fairjax.mitigation import DisparateImpactRemover, equal_rate_rules
from fairjax.mitigation.distances import distribution_distances


@dataclass(frozen=True)
class Row(timing.Row):
    """One task.

    Attributes:
      task: What is done.
      rows: How many.
      features: How many; 0 where none are read.
      groups: How many.
      milliseconds: Of ours, the median of the rounds.
      first_seconds: Of our first call, compilation included.
      reached: What ours reaches.
      of: What that is; less is better.
      against: What it is compared with.
      their_seconds: The median of theirs.
      ratio: The median over rounds of their time and ours.
      their_reached: What theirs reaches.
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
    row: Callable[..., Row],
    ours: Callable[[], Any],
    theirs: Callable[[], Any] | None,
    reached: Callable[[Any], float],
    *,
    rounds: int,
    against: str = "AIF360",
    of: str | Callable[[dict[str, Any]], str],
) -> Row:
    """Call both in turns, and compare what they take and reach.

    Args:
      row: Makes the row, of the other fields.
      ours: Our call.
      theirs: The other library's, if there is one.
      reached: Of what a call returned.
      rounds: Times that both are called.
      against: The other library.
      of: What is reached; may be made of what both sides returned.
    """
    found, last = clocked(ours, theirs, rounds)
    compared: dict[str, Any] = {}
    if theirs is not None:
        compared = {"against": against, "their_reached": reached(last["theirs"])}
    what = of if isinstance(of, str) else of(last)
    return row(reached=reached(last["ours"]), of=what, **compared, **found)


def table_of(
    rows: int, features: int, groups: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Features that groups have at other places and of other widths."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, rows)
    place = 0.5 * rng.standard_normal((groups, features))
    width = np.exp(0.2 * rng.standard_normal((groups, features)))
    return place[group] + width[group] * rng.standard_normal((rows, features)), group


def outcomes_of(
    rows: int, groups: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores and groups: rare outcomes are the harder to tell."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, rows)
    worse = group / groups
    label = (rng.random(rows) < 0.5 - 0.3 * worse).astype(np.int64)
    score = (1.5 - worse) * label - 0.7 + rng.standard_normal(rows)
    return label, score, group


def measure_repair(
    rows: int, features: int, groups: int, *, rounds: int, aif360: bool
) -> Row:
    """Measure the disparate impact remover, learnt and applied, against AIF360's."""
    values, group = table_of(rows, features, groups)

    def largest_distance(repaired: Any) -> float:
        repaired = np.asarray(repaired)
        return float(
            distribution_distances(repaired, group, num_groups=groups)[0].max()
        )

    return measured(
        functools.partial(Row, "disparate impact remover", rows, features, groups),
        lambda: DisparateImpactRemover().fit_transform(
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
    """Measure equalized odds: of hard decisions in two groups, or of scores.

    Args:
      rows: How many.
      rounds: Times that both are called.
      aif360: Compare decisions with AIF360, which has no rule for scores.
      groups: How many have scores; None for two groups' decisions.
    """
    number = groups or 2
    labels, scores, group = outcomes_of(rows, number)
    theirs = None
    if groups is None:
        scores = (scores >= 0).astype(np.float64)
        if aif360:
            theirs = aif360_mitigation.equal_odds(labels, scores, group)

    def ours() -> float:
        return equal_rate_rules(
            labels, scores, group, num_groups=number, objective="balanced_error"
        ).cost

    task = f"equalized odds of {'scores' if groups else 'decisions'}"
    return measured(
        functools.partial(Row, task, rows, 0, number),
        ours,
        theirs,
        float,
        rounds=rounds,
        of="mean of false positive and false negative rate",
    )
