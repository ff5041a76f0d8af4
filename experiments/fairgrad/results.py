"""The FairGrad experiment's options, results and words."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.core import results
from experiments.core.programs import Budget
from experiments.reporting import words

SAID = words.read(__file__)
DEFAULT_ATTRIBUTES = {
    "support2": ("sex", "race", "income", "age"),
    "support2_sepsis": ("sex", "race", "income", "age"),
    "rhc": ("sex", "race", "income", "insurance", "age"),
    "rhc_sepsis": ("sex", "race", "income", "insurance", "age"),
    "nhanes": ("sex", "race", "insured", "education", "age", "poverty"),
}
Dataset = Literal["support2", "support2_sepsis", "rhc", "rhc_sepsis", "nhanes"]


@dataclass(frozen=True)
class Options(results.TunedOptions):
    """FairGrad and its baselines on real patients.

    Attributes:
      dataset: Data set of patients.
      attributes: Sensitive attributes to make fair and audit. By default, the data
        set's default attributes.
      methods: Methods to compare. By default, all but the ablations (the absolute
        penalty, and FairGrad without a condition). ERM is always included.
      repeats: How often the five-fold cross-validation is repeated on new splits.
      blind: Keep race, income and similar attributes out of the inputs. By default, a
        model reads the attributes for which it should be fair.
      full: Repeat the cross-validation at least 20 times, with the ablations, as for
        the numbers in the README.
      output: Folder in which a folder for the data set is made.
      seed: Seed of splits, weights, batches and resamples.
      bootstrap: Number of resamples of the patients.
      permutations: Number of shuffles of each attribute, for the noise floor.
      tolerance: AUROC that a selected setting may lose on validation. The default is
        below the .005 that the report allows on test, since selection favours lucky
        settings.
    """

    dataset: Dataset = "support2"
    output: Path = Path("results/fairgrad")
    blind: bool = False


Results = results.Results[Options, Budget]
