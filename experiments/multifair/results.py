"""The MultiFair experiment's options, results and words."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.core import results
from experiments.multifair.task import MultimodalBudget
from experiments.reporting import words

SAID = words.read(__file__)
DEFAULT_ATTRIBUTES = {
    "nafld": ("sex", "age"),
    "openi": ("age",),
    "simulated": ("group",),
}
Dataset = Literal["nafld", "openi", "simulated"]


@dataclass(frozen=True)
class Options(results.TunedOptions):
    """MultiFair, its levels one at a time, and related methods on multimodal patients.

    Attributes:
      dataset: Data set of patients.
      attributes: Sensitive attributes; groups in training are their intersections. By
        default, the data set's default attributes.
      methods: Methods to compare; all by default. Joint training is always included.
      repeats: How often the five-fold cross-validation is repeated on new splits; each
        repeat trains five seeds of every method.
      full: Repeat the cross-validation at least 20 times: 100 seeds.
      output: Folder in which a folder for the data set is made.
      seed: Seed of splits, weights, batches and resamples.
      bootstrap: Number of resamples of the patients.
      permutations: Number of shuffles of each attribute, for the noise floors.
      tolerance: AUROC that a selected setting may lose on validation.
    """

    dataset: Dataset = "nafld"
    output: Path = Path("results/multifair")
    repeats: int = 4


Results = results.Results[Options, MultimodalBudget]
