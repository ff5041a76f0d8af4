"""Measures mitigation: each stage against AIF360 or fairlearn, and all at scale.

Run ``python -m experiments.bench.mitigation --help`` for the options. Both sides get
the same arrays and are called in turns, and their results are compared.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version

from experiments.bench import aif360_mitigation, timing
from experiments.bench.mitigation_tasks import Row, measure_odds, measure_repair
from experiments.bench.pipeline_at_scale import measure_pipeline
from experiments.bench.reduction_tasks import measure_reduction
from experiments.intersectional.learners import LearnerName


@dataclass(frozen=True)
class Options(timing.MemoryOptions):
    """Time mitigation against AIF360 and fairlearn.

    Attributes:
      sizes: Numbers of rows for repair.
      features: Number of features for repair.
      groups: Number of groups; AIF360's group names are numbers, which it bins.
      odds_sizes: Numbers of rows for equalized odds.
      rounds: Times that both libraries are called in turns, after the first call.
      repair_rounds: Rounds of repair, for which AIF360 takes minutes.
      reduction_sizes: Numbers of rows for the reduction to equal selection rates.
      reduction_features: Number of features for the reduction.
      reduction_rounds: Rounds of the reduction.
      members: Simulated members for the eight configurations; 0 to leave them out.
      learner: Learner of the eight configurations.
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


def tasks(options: Options, *, aif360: bool) -> Iterator[Row]:
    """Measures all tasks, in the table's order."""
    groups, rounds = options.groups, options.rounds
    for rows in options.sizes:
        yield measure_repair(
            rows, options.features, groups, rounds=options.repair_rounds, aif360=aif360
        )
    for rows in options.odds_sizes:
        yield measure_odds(rows, rounds=rounds, aif360=aif360)
    for rows in options.odds_sizes:
        yield measure_odds(rows, rounds=rounds, groups=groups)
    for rows in options.reduction_sizes:
        features = options.reduction_features
        yield measure_reduction(rows, features, groups, rounds=options.reduction_rounds)
    if options.members:
        yield measure_pipeline(options.members, learner=options.learner)


def main(options: Options) -> list[Row]:
    """Measures, prints and saves.

    Raises:
      ValueError: If an option or a folder cannot be used.
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
    about |= {name: version(name) for name in ("scipy", "scikit-learn", "fairlearn")}
    if there:
        about |= {name: version(name) for name in ("aif360", "BlackBoxAuditing")}
    (rows,) = timing.measured(
        options,
        about,
        {f"mitigation-{timing.setting(about)}": Row},
        [lambda: tasks(options, aif360=there)],
        width=170,
    )
    return rows


if __name__ == "__main__":
    timing.command(main, Options, __doc__)
