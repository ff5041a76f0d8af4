"""The options, results and words of the intersectional experiment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from experiments.core import results
from experiments.core.programs import Budget
from experiments.intersectional.groups import Composite
from experiments.intersectional.learners import LearnerName
from experiments.intersectional.repair import Repair
from experiments.reporting import words
from fairjax.evaluation import BY_LEVEL, names
from fairjax.metrics.definitions import METRICS as DEFINITIONS
from fairjax.mitigation.constraints import Parity
from fairjax.mitigation.costs import Objective

SAID = words.read(__file__)
# Repeats of five folds each: 20 splits. With fewer, the report says that it is a first
# look.
FULL_REPEATS, FULL_SPLITS = 4, 20
QUICK: Mapping[str, int] = {"repeats": 2, "splits": 5, "bootstrap": 200}
DEFAULT_MIN_PATIENTS = 100
# The paper's smallest subgroup has 9,217 records.
MIN_PATIENTS = {"simulated_subgroups": 9_000}
# Data sets of `--dataset all`, one after another.
DEFAULT_DATASETS = ("nhanes", "support2", "rhc")
Dataset = Literal["nhanes", "support2", "rhc", "heritage", "simulated_subgroups", "all"]
PARITY_METRICS = (
    names.IMPACT,
    names.STATISTICAL_PARITY,
    names.OPPORTUNITY,
    names.AVERAGE_ODDS,
)
RATES = ("group_accuracy", "group_balanced_accuracy", "group_f1_score", "group_recall")
OVERALL = ("f1_score", "auroc", "accuracy", "balanced_accuracy", "selection_rate")
METRICS = (*OVERALL, *BY_LEVEL, names.GROUP_AUROC)
# Metrics of every subgroup, in the order of the paper's table.
TABLE = (*PARITY_METRICS, *RATES, names.GROUP_AUROC)
NAMES = {
    names.IMPACT: "Disparate impact",
    names.STATISTICAL_PARITY: "Statistical parity difference",
    names.OPPORTUNITY: "Equal opportunity difference",
    names.AVERAGE_ODDS: "Average odds difference",
    **{
        f"group_{name}": DEFINITIONS[name].title
        for name in ("accuracy", "balanced_accuracy", "f1_score")
    },
    "group_recall": "Recall",
    names.GROUP_AUROC: DEFINITIONS["auroc"].short,
}


@dataclass(frozen=True)
class Options(results.RunOptions):
    """Pre-, in- and post-processing, in all combinations, on intersectional subgroups.

    Attributes:
      dataset: Data set of patients; ``all`` for nhanes, support2 and rhc one after
        another.
      configurations: Combinations of stages; all by default. The base model is always
        included.
      repeats: How often the five-fold cross-validation is repeated on new splits.
      splits: Number of random splits of the paper's own protocol.
      quick: A first look: at most 2 repeats, 5 splits and 200 resamples.
      learner: Classifier around which the first three stages are built.
      constraint: Rates that exponentiated gradient reduction equalises.
      objective: Error that the reduction and equalized odds minimise under fairness:
        the mean of both error rates, or plain error, with which a rare outcome leaves
        hardly anyone selected.
      iterations: Maximum iterations of exponentiated gradient reduction.
      repair_level: Repair level of the disparate impact remover, 0 to 1.
      thresholds: Decide by a threshold for each group, as published, or by a common
        threshold; both have the largest F1 on validation patients.
      min_patients: Combinations of race, sex and age with fewer patients are merged.
        The default is 100, or 9,000 for the simulated members.
      min_outcomes: Combinations with fewer patients with the outcome, or with fewer
        without the outcome, are merged.
      output: Folder in which a folder for the data set is made.
      seed: Seed of splits, models, batches and resamples.
      bootstrap: Number of resamples of the patients.
      permutations: Number of shuffles of the subgroups, for the noise floors.
    """

    dataset: Dataset = "all"
    output: Path = Path("results/intersectional")
    configurations: results.Names = ()
    repeats: int = FULL_REPEATS
    splits: int = FULL_SPLITS
    quick: bool = False
    learner: LearnerName = "xgboost"
    constraint: Parity = "demographic_parity"
    objective: Objective = "balanced_error"
    iterations: int = 50
    repair_level: float = 1.0
    thresholds: Literal["group", "common"] = "group"
    min_patients: int | None = None
    min_outcomes: int = 25


def other_thresholds(options: Options) -> str:
    """Returns the kind of thresholds that is not the chosen kind, as a setting."""
    return "common" if options.thresholds == "group" else "group"


def preliminary(options: Options) -> str:
    """Returns a warning if there are fewer splits than a result needs, else ""."""
    if options.repeats >= FULL_REPEATS and options.splits >= FULL_SPLITS:
        return ""
    return SAID["preliminary"].format(
        options=options, repeats=FULL_REPEATS, splits=FULL_SPLITS
    )


@dataclass(frozen=True, eq=False)
class PerSplit:
    """Metrics of single splits.

    Attributes:
      values: configuration -> metric's full name -> ``[S]``; NaN where undefined.
      overlap: configuration -> rows evaluated over rows trained on, which says how much
        splits share their training rows.
      missed: model with a bound -> ``[S]``, how far training rows exceed the bound.
    """

    values: Mapping[str, Mapping[str, np.ndarray]]
    overlap: Mapping[str, float]
    missed: Mapping[str, np.ndarray] = field(default_factory=dict)


_NOTHING = PerSplit({}, {})


@dataclass(frozen=True, eq=False)
class Results(results.Results[Options, Budget]):
    """The results from which the report is written.

    Attributes:
      composite: The subgroups; never None in a run.
      folds: Metrics of each test fold of the clean protocol.
      paper: The paper's protocol: 50 % train, 40 % test, 10 % for equalized odds.
      repair: Effect of the disparate impact remover, or None if it was not run.
    """

    composite: Composite | None = None
    folds: PerSplit = _NOTHING
    paper: PerSplit = _NOTHING
    repair: Repair | None = None

    @property
    def subgroups(self) -> Composite:
        """The composite attribute."""
        assert self.composite is not None
        return self.composite
