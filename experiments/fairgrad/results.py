"""The FairGrad experiment's options, and what a run of it holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.core import results
from experiments.core.programs import Budget

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
      dataset: Which patients.
      attributes: Sensitive attributes to make fair and audit; the data set's own
        choice where none is named.
      methods: Which methods; all but the ablations (the absolute penalty, and FairGrad
        without a condition) where none is named. ERM is always among them.
      repeats: How often the five-fold cross-validation is repeated on new splits.
      blind: Keep race, income and the like out of the inputs. By default a model sees
        the attributes that it is to be fair about.
      full: Repeat it 20 times at least, with the ablations, as for the figures of the
        README.
      output: Folder that gets a folder for the data set.
      seed: Of splits, weights, batches and resamples.
      bootstrap: Resamples of the patients.
      permutations: Shuffles of each attribute, for the noise floor.
      tolerance: AUROC that a setting may lose on validation to be selected: less than
        the .005 that the report allows on test, since selection favours lucky settings.
    """

    dataset: Dataset = "support2"
    output: Path = Path("results/fairgrad")
    blind: bool = False


Results = results.Results[Options, Budget]
