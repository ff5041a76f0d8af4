"""The MultiFair experiment's options, and what a run of it holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.core import results
from experiments.multifair.task import MultimodalBudget

DEFAULT_ATTRIBUTES = {
    "nafld": ("sex", "age"),
    "openi": ("age",),
    "simulated": ("group",),
}
Dataset = Literal["nafld", "openi", "simulated"]


@dataclass(frozen=True)
class Options(results.TunedOptions):
    """MultiFair, its levels one at a time, and its relatives on multimodal patients.

    Attributes:
      dataset: Which patients.
      attributes: Sensitive attributes; groups in training are their intersections. The
        data set's own choice where none is named.
      methods: Which methods; all where none is named. Joint training is always among
        them.
      repeats: How often the five-fold cross-validation is repeated on new splits; each
        repeat trains five seeds of every method.
      full: Repeat it 20 times at least: 100 seeds.
      output: Folder that gets a folder for the data set.
      seed: Of splits, weights, batches and resamples.
      bootstrap: Resamples of the patients.
      permutations: Shuffles of each attribute, for the noise floors.
      tolerance: AUROC that a setting may lose on validation to be selected.
    """

    dataset: Dataset = "nafld"
    output: Path = Path("results/multifair")
    repeats: int = 4


Results = results.Results[Options, MultimodalBudget]
