"""Measures mitigation: each stage against AIF360 or fairlearn, and all at scale.

Run ``python -m experiments.bench.mitigation --help`` for the options. Both sides get
the same arrays and are called in turns, and their results are compared.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from experiments.bench import aif360_mitigation, mitigation_tasks, timing
from experiments.bench.mitigation_tasks import Row, measure_odds
from experiments.bench.pipeline_at_scale import measure_pipeline
from experiments.bench.timing import Limit, Numbers
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

    sizes: Annotated[Numbers, Limit(quick=(4000,))] = (10_000, 100_000)
    features: Annotated[int, Limit(quick=3)] = 50
    groups: Annotated[int, Limit(2)] = 10
    odds_sizes: Annotated[Numbers, Limit(quick=(2000,))] = (10_000, 150_000)
    rounds: Annotated[int, Limit(quick=2)] = 9
    repair_rounds: Annotated[int, Limit(quick=1)] = 3
    reduction_sizes: Annotated[Numbers, Limit(quick=(1000,))] = (20_000,)
    reduction_features: Annotated[int, Limit(quick=5)] = 30
    reduction_rounds: Annotated[int, Limit(quick=1)] = 3
    members: Annotated[int, Limit(0, quick=0)] = 376_357
    learner: LearnerName = "xgboost"
    aif360: bool = True

    @property
    def against_aif360(self) -> bool:
        """Whether AIF360 is compared with."""
        return self.aif360 and aif360_mitigation.installed()


def tasks(options: Options) -> Iterator[Row]:
    """Measures all tasks, in the table's order."""
    groups, rounds, aif360 = options.groups, options.rounds, options.against_aif360
    features, repair_rounds = options.reduction_features, options.repair_rounds
    for rows in options.sizes:
        yield mitigation_tasks.measure_repair(
            rows, options.features, groups, rounds=repair_rounds, aif360=aif360
        )
    for rows in options.odds_sizes:
        yield measure_odds(rows, rounds=rounds, aif360=aif360)
    for rows in options.odds_sizes:
        yield measure_odds(rows, rounds=rounds, groups=groups)
    for rows in options.reduction_sizes:
        yield mitigation_tasks.measure_reduction(
            rows, features, groups, rounds=options.reduction_rounds
        )
    if options.members:
        yield measure_pipeline(options.members, learner=options.learner)


def main(options: Options) -> list[Row]:
    """Measures, prints and saves.

    Raises:
      ValueError: If an option or a folder cannot be used.
    """
    packages = ["scipy", "scikit-learn", "fairlearn"]
    if options.against_aif360:
        packages += ["aif360", "BlackBoxAuditing"]
    (rows,) = timing.run(
        options,
        {"mitigation-{}": Row},
        lambda options: [tasks(options)],
        packages=packages,
        width=170,
    )
    return rows


if __name__ == "__main__":
    timing.command(main, Options, __doc__)
