"""The options of the intersectional experiment, and what a run of it holds."""

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
from fairjax.evaluation import BY_LEVEL, names
from fairjax.metrics.definitions import METRICS as DEFINITIONS
from fairjax.mitigation.constraints import Parity
from fairjax.mitigation.costs import Objective

# Of five folds each: 20 splits. Fewer are a first look, which its report says.
FULL_REPEATS, FULL_SPLITS = 4, 20
QUICK: Mapping[str, int] = {"repeats": 2, "splits": 5, "bootstrap": 200}
DEFAULT_MIN_PATIENTS = 100
# The paper's smallest subgroup has 9,217 records.
MIN_PATIENTS = {"simulated_subgroups": 9_000}
# One after another, for `--dataset all`.
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
# Of every subgroup, in the order of the paper's table.
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
      dataset: Which patients; ``all`` for nhanes, support2 and rhc one after another.
      configurations: Which combinations of stages; all where none is named. The base
        model is always among them.
      repeats: How often the five-fold cross-validation is repeated on new splits.
      splits: Random splits of the paper's own protocol.
      quick: A first look: 2 repeats, 5 splits and 200 resamples at most.
      learner: Which classifier the first three stages are built around.
      constraint: What exponentiated gradient reduction is to equalise.
      objective: What the reduction and equalized odds keep small, apart from being
        fair: the mean of both error rates, or plain error, by which a rare outcome
        leaves hardly anyone selected.
      iterations: Of exponentiated gradient reduction, at most.
      repair_level: Of the disparate impact remover, 0 to 1.
      thresholds: Decide by a threshold for each group, as published, or by a common
        one; both are those of the largest F1 on validation patients.
      min_patients: Combinations of race, sex and age with fewer patients are merged.
        100, or 9,000 of the simulated members, where it is not given.
      min_outcomes: Likewise with fewer patients with, or without, the outcome.
      output: Folder that gets a folder for the data set.
      seed: Of splits, models, batches and resamples.
      bootstrap: Resamples of the patients.
      permutations: Shuffles of the subgroups, for the noise floors.
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
    """The kind that is evaluated beside the chosen one, as a setting."""
    return "common" if options.thresholds == "group" else "group"


def preliminary(options: Options) -> str:
    """A warning where there are fewer splits than a result takes; else nothing."""
    if options.repeats >= FULL_REPEATS and options.splits >= FULL_SPLITS:
        return ""
    return (
        f"A first look: {options.repeats} repeats of the cross-validation in place of "
        f"{FULL_REPEATS}, {options.splits} splits of the paper's protocol in place of "
        f"{FULL_SPLITS}. How much repeats differ is hardly known from so few, so that "
        "p-values are often too small; no verdict here is a result."
    )


@dataclass(frozen=True, eq=False)
class PerSplit:
    """Metrics of single splits.

    Attributes:
      values: configuration -> metric's full name -> ``[S]``; NaN where undefined.
      overlap: configuration -> rows evaluated over rows trained on, which says how far
        splits share what they were trained on.
      missed: model held to a bound -> ``[S]``, by how much it misses it in training.
    """

    values: Mapping[str, Mapping[str, np.ndarray]]
    overlap: Mapping[str, float]
    missed: Mapping[str, np.ndarray] = field(default_factory=dict)


_NOTHING = PerSplit({}, {})


@dataclass(frozen=True, eq=False)
class Results(results.Results[Options, Budget]):
    """What the report is written from.

    Attributes:
      composite: The subgroups; always there.
      folds: Each test fold of the clean protocol on its own.
      paper: The paper's protocol: 50 % train, 40 % test, 10 % for equalized odds.
      repair: What the disparate impact remover did, or None where it was not run.
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
