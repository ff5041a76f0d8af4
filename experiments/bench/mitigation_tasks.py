"""Repair and equal rates beside AIF360's: what they take, and what they reach."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from experiments.bench import aif360_mitigation, timing
from experiments.bench.timing import Cell, timed
from fairjax.mitigation import DisparateImpactRemover, equal_rate_rules
from fairjax.mitigation.distances import distribution_distances

_REPAIRED = "largest KS distance of two groups"
_ODDS = "mean of false positive and false negative rate"


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


def clocked(
    ours: Callable[[], Any], theirs: Callable[[], Any] | None, rounds: int
) -> dict[str, Any]:
    """Times of both, called in turns, and what the last calls returned."""
    last: dict[str, Any] = {}

    def keep(name: str, call: Callable[[], Any]) -> None:
        last[name] = call()

    first = timed(lambda: keep("ours", ours))
    taken = []
    for _ in range(rounds):
        mine = timed(lambda: keep("ours", ours))
        other = np.nan if theirs is None else timed(lambda: keep("theirs", theirs))
        taken.append((mine, other))
    mine, other = np.array(taken).T
    found = {
        "milliseconds": 1e3 * float(np.median(mine)),
        "first_seconds": first,
        "last": last,
    }
    if theirs is not None:
        found["their_seconds"] = float(np.median(other))
        found["ratio"] = float(np.median(other / mine))
    return found


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
    """The disparate impact remover, learnt and applied, against AIF360's."""
    values, group = table_of(rows, features, groups)
    theirs = aif360_mitigation.repair(values, group) if aif360 else None
    found = clocked(
        lambda: DisparateImpactRemover().fit_transform(
            values, sensitive_features=group
        ),
        theirs,
        rounds,
    )
    distances = functools.partial(
        distribution_distances, groups=group, num_groups=groups
    )
    reached = {
        name: float(distances(np.asarray(repaired))[0].max())
        for name, repaired in found.pop("last").items()
    }
    return Row(
        "disparate impact remover",
        rows,
        features,
        groups,
        reached=reached["ours"],
        of=_REPAIRED,
        **_compared(theirs, reached),
        **found,
    )


def measure_odds(rows: int, *, rounds: int, aif360: bool) -> Row:
    """Equalized odds of hard decisions in two groups, against AIF360's."""
    labels, scores, groups = outcomes_of(rows, 2)
    decisions = (scores >= 0).astype(np.int64)
    theirs = aif360_mitigation.equal_odds(labels, decisions, groups) if aif360 else None
    ranked = decisions.astype(np.float64)
    return _odds_row("decisions", labels, ranked, groups, 2, theirs, rounds)


def measure_score_odds(rows: int, groups: int, *, rounds: int) -> Row:
    """Equalized odds of scores in several groups, which AIF360 has not."""
    labels, scores, group = outcomes_of(rows, groups)
    return _odds_row("scores", labels, scores, group, groups, None, rounds)


def _odds_row(
    what: str,
    labels: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    num_groups: int,
    theirs: Callable[[], float] | None,
    rounds: int,
) -> Row:
    def ours() -> float:
        return equal_rate_rules(
            labels, scores, groups, num_groups=num_groups, objective="balanced_error"
        ).cost

    found = clocked(ours, theirs, rounds)
    reached = found.pop("last")
    return Row(
        f"equalized odds of {what}",
        len(labels),
        0,
        num_groups,
        reached=reached["ours"],
        of=_ODDS,
        **_compared(theirs, reached),
        **found,
    )


def _compared(theirs: object, reached: dict[str, float]) -> dict[str, Any]:
    if theirs is None:
        return {}
    return {"against": "AIF360", "their_reached": reached["theirs"]}
