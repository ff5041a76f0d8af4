"""The results of a run of any system, and the selections that every report needs."""

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
    """The options that every system has; each system's class documents its options."""

    dataset: str
    output: Path
    seed: int = 0
    bootstrap: int = 500
    permutations: int = 200


@dataclass(frozen=True)
class TunedOptions(RunOptions):
    """Options of systems with named methods, some of which are tuned by a tolerance."""

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
      options: The system's options.
      splits: The patients and their folds.
      budget: The budget of every method, as the system states it.
      evaluations: Title of the predictions -> their evaluation, in order.
      predictions: Title -> the predictions.
      titles: Title -> its name for readers.
      selected: Method -> setting -> in how many lanes validation chose the setting.
      histories: Method -> name -> values recorded at every step of training.
      weights: float32 ``[n]``, the weights of all metrics, or None.
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
        """The patients and the outcome that is predicted."""
        return f"{self.splits.table.title}, {self.splits.table.outcome}"

    @property
    def prevalence(self) -> float:
        """Fraction of the patients, or of their weights, with the outcome."""
        label = self.splits.table.label
        if self.weights is None:
            return float(label.mean())
        return float(np.average(label, weights=self.weights))


# Results for code that does not use the options' or the budget's type.
AnyResults = Results[Any, Any]


def main_methods(results: AnyResults) -> list[str]:
    """Lists the rows of the main table: one for each method, settings by validation."""
    return [
        title
        for title, found in results.predictions.items()
        if found.setting in ("", "selected")
    ]


def family(results: AnyResults, name: str) -> list[tuple[str, Evaluation]]:
    """Lists a method's settings and their evaluations, in order."""
    return [
        (found.setting, results.evaluations[title])
        for title, found in results.predictions.items()
        if found.name == name and found.setting not in ("", "selected")
    ]


def families(
    results: AnyResults, names: Sequence[str]
) -> dict[str, list[tuple[str, Evaluation]]]:
    """Returns name for readers -> settings, of the tuned methods that were run."""
    found = ((name, family(results, name)) for name in names)
    return {results.titles[name]: settings for name, settings in found if settings}


def main_evaluations(
    results: AnyResults, but: Collection[str] = ()
) -> dict[str, Evaluation]:
    """Returns name for readers -> evaluation, of the main methods but for some."""
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
    """Compares methods with the baseline, with Holm's correction over the methods.

    Args:
      results: Results of the run.
      baseline: The method that the others are compared with.
      metrics: Full names of the metrics.
      references: Methods that are not candidates. References, and settings that
        validation did not choose, are compared without correction.

    Returns:
      Metric -> method -> difference from the baseline.
    """
    every = results.evaluations
    main = [title for title in main_methods(results) if title not in references]
    candidates = {title: every[title] for title in main}
    found = {}
    for metric in metrics:
        found[metric] = compare_all(candidates, baseline, metric)
        for title, one in every.items():
            if title not in candidates:
                found[metric][title] = compare(one, every[baseline], metric)
    return found
