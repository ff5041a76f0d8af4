"""What a run of any system holds, and what every report asks of it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import numpy as np
import tyro

from experiments.core.evaluation import Predictions
from experiments.core.protocol import CrossValidation
from fairjax.evaluation import Comparison, Evaluation, compare, compare_all

Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")]


@dataclass(frozen=True)
class RunOptions:
    """The options that every system has; its own class says what they do."""

    dataset: str
    output: Path
    seed: int = 0
    bootstrap: int = 500
    permutations: int = 200


@dataclass(frozen=True)
class TunedOptions(RunOptions):
    """Those of systems that name methods, some of which are tuned by a tolerance."""

    attributes: Names = ()
    methods: Names = ()
    repeats: int = 2
    full: bool = False
    tolerance: float = 0.004


OptionsT = TypeVar("OptionsT", bound=RunOptions)
BudgetT = TypeVar("BudgetT")


@dataclass(frozen=True, eq=False)
class Results(Generic[OptionsT, BudgetT]):
    """Everything that a report is written from.

    Attributes:
      options: The system's.
      splits: The patients and their folds.
      budget: What every method could spend, as the system states it.
      evaluations: Title of the predictions -> their evaluation, in order.
      predictions: Title -> the predictions.
      titles: Title -> its name for readers.
      selected: Method -> setting -> in how many lanes validation chose it.
      histories: Method -> name -> what was told at every step of training.
      weights: float32 ``[n]`` that all metrics were weighted by, or None.
    """

    options: OptionsT
    splits: CrossValidation
    budget: BudgetT
    evaluations: dict[str, Evaluation]
    predictions: dict[str, Predictions]
    titles: dict[str, str]
    selected: dict[str, dict[str, int]]
    histories: dict[str, dict[str, np.ndarray]]
    weights: np.ndarray | None = None

    @property
    def title(self) -> str:
        """Who the patients are, and what is predicted."""
        return f"{self.splits.table.title}, {self.splits.table.outcome}"

    @property
    def prevalence(self) -> float:
        """Share of the patients, or of their weights, with the outcome."""
        label = self.splits.table.label
        if self.weights is None:
            return float(label.mean())
        return float(np.average(label, weights=self.weights))


# A system whose options are of no interest where it stands.
AnyResults = Results[Any, Any]


def main_methods(results: AnyResults) -> list[str]:
    """The rows of the main table: one for each method, settings from validation."""
    return [
        title
        for title, found in results.predictions.items()
        if found.setting in ("", "selected")
    ]


def family(results: AnyResults, name: str) -> list[tuple[str, Evaluation]]:
    """A family's settings and their evaluations, in order."""
    return [
        (found.setting, results.evaluations[title])
        for title, found in results.predictions.items()
        if found.name == name and found.setting not in ("", "selected")
    ]


def families(
    results: AnyResults, names: Sequence[str]
) -> dict[str, list[tuple[str, Evaluation]]]:
    """Name for readers -> a family's settings, of the families that were run."""
    found = ((name, family(results, name)) for name in names)
    return {results.titles[name]: settings for name, settings in found if settings}


def main_evaluations(
    results: AnyResults, but: Collection[str] = ()
) -> dict[str, Evaluation]:
    """Name for readers -> its evaluation, of the main methods but for some."""
    return {
        results.titles[title]: results.evaluations[title]
        for title in main_methods(results)
        if results.predictions[title].name not in but
    }


def compare_to_baseline(
    results: AnyResults,
    baseline: str,
    metrics: Sequence[str],
    references: Collection[str] = (),
) -> dict[str, dict[str, Comparison]]:
    """Metric -> method -> difference from the baseline, Holm over the methods compared.

    Args:
      results: Of the run.
      baseline: The method that the others are compared with.
      metrics: Full names.
      references: Methods that are no candidates: they are compared on their own, as is
        every setting that validation did not choose.
    """
    main = main_methods(results)
    candidates = {
        title: results.evaluations[title] for title in main if title not in references
    }
    others = {
        title: evaluation
        for title, evaluation in results.evaluations.items()
        if title not in candidates
    }
    found = {}
    for metric in metrics:
        found[metric] = compare_all(candidates, baseline, metric)
        for title, evaluation in others.items():
            found[metric][title] = compare(
                evaluation, results.evaluations[baseline], metric
            )
    return found
