"""What mitigation costs: each stage against AIF360 or fairlearn, and all at scale.

Run ``python -m experiments.bench.mitigation --help`` for the options. Both sides get
the same arrays, are called in turns, and what they achieve is compared.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

from experiments.bench import aif360_mitigation, timing
from experiments.bench.mitigation_tasks import (
    Row,
    measure_odds,
    measure_repair,
    measure_score_odds,
)
from experiments.bench.pipeline_at_scale import measure_pipeline
from experiments.bench.reduction_tasks import measure_reduction
from experiments.intersectional.learners import LearnerName


@dataclass(frozen=True)
class Options(timing.MemoryOptions):
    """Time mitigation against AIF360 and fairlearn.

    Attributes:
      sizes: Numbers of rows to repair.
      features: Of each.
      groups: Of each; the names of AIF360's are numbers, which it sorts into bins.
      odds_sizes: Numbers of rows to equalise odds of.
      rounds: Times that both are called in turns, after the first.
      repair_rounds: The same for repair, where AIF360 takes minutes.
      reduction_sizes: Numbers of rows to reduce to equal selection rates.
      reduction_features: Of each.
      reduction_rounds: The same for the reduction.
      members: Simulated members for the eight configurations; 0 for none.
      learner: Of these.
      aif360: Compare with AIF360, if it is installed.
    """

    sizes: tuple[int, ...] = (10_000, 100_000)
    features: int = 50
    groups: int = 10
    odds_sizes: tuple[int, ...] = (10_000, 150_000)
    rounds: int = 9
    repair_rounds: int = 3
    reduction_sizes: tuple[int, ...] = (20_000,)
    reduction_features: int = 30
    reduction_rounds: int = 3
    members: int = 376_357
    learner: LearnerName = "xgboost"
    aif360: bool = True


def tasks(options: Options) -> list[Callable[[], Row]]:
    """What is measured, in the table's order."""
    repair = functools.partial(
        measure_repair,
        features=options.features,
        groups=options.groups,
        rounds=options.repair_rounds,
        aif360=options.aif360,
    )
    odds = functools.partial(measure_odds, rounds=options.rounds, aif360=options.aif360)
    score_odds = functools.partial(
        measure_score_odds, groups=options.groups, rounds=options.rounds
    )
    reduction = functools.partial(
        measure_reduction,
        features=options.reduction_features,
        groups=options.groups,
        rounds=options.reduction_rounds,
    )
    whole = functools.partial(measure_pipeline, learner=options.learner)
    return [
        *(functools.partial(repair, rows) for rows in options.sizes),
        *(functools.partial(odds, rows) for rows in options.odds_sizes),
        *(functools.partial(score_odds, rows) for rows in options.odds_sizes),
        *(functools.partial(reduction, rows) for rows in options.reduction_sizes),
        *([functools.partial(whole, options.members)] if options.members else []),
    ]


def main(options: Options) -> list[Row]:
    """Measure, print and save.

    Raises:
      ValueError: An option or a folder that cannot be used.
    """
    timing.check_numbers(options, least={"members": 0, "groups": 2})
    options, about = timing.begin(
        options,
        sizes=(4000,),
        features=3,
        odds_sizes=(2000,),
        rounds=2,
        repair_rounds=1,
        reduction_sizes=(1000,),
        reduction_features=5,
        reduction_rounds=1,
        members=0,
    )
    there = options.aif360 and aif360_mitigation.installed()
    options = dataclasses.replace(options, aif360=there)
    about |= {name: version(name) for name in ("scipy", "scikit-learn", "fairlearn")}
    if there:
        about |= {name: version(name) for name in ("aif360", "BlackBoxAuditing")}
    rows = [task() for task in tasks(options)]
    timing.show(Row.heads(), rows, width=170)
    timing.save(options, f"mitigation-{timing.setting(about)}", Row, rows, about)
    return rows


if __name__ == "__main__":
    timing.command(main, Options, __doc__)
