"""Patients for the experiments: real, read from installed packages, or simulated."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from experiments.datasets.encode import encode_splits, encoder
from experiments.datasets.folds import check_disjoint, patient_folds
from experiments.datasets.heritage import heritage
from experiments.datasets.multimodal import MultimodalTable
from experiments.datasets.nafld import nafld
from experiments.datasets.nhanes import nhanes
from experiments.datasets.openi import openi
from experiments.datasets.simulated_modalities import simulated
from experiments.datasets.simulated_subgroups import simulated_subgroups
from experiments.datasets.survset import rhc, rhc_sepsis, support2, support2_sepsis
from experiments.datasets.table import ClinicalTable, validate

TableT = TypeVar("TableT")

_TABLES = (support2, support2_sepsis, rhc, rhc_sepsis, nhanes)
DATASETS = {made.__name__: made for made in _TABLES}
# Too large to train hundreds of networks side by side.
LARGE = {"heritage": heritage, "simulated_subgroups": simulated_subgroups}
MULTIMODAL = {"nafld": nafld, "openi": openi, "simulated": simulated}


def load(name: str) -> ClinicalTable:
    """Returns a data set by name.

    Args:
        name: One of `DATASETS` or `LARGE`.

    Returns:
        The validated table.

    Raises:
        ValueError: If no data set has that name, or its file is not the pinned one.
        ModuleNotFoundError: If the package that ships it is not installed.
    """
    return _loaded(name, {**DATASETS, **LARGE})


def load_multimodal(name: str) -> MultimodalTable:
    """Returns a data set of several modalities by name.

    Args:
        name: One of `MULTIMODAL`.

    Returns:
        The validated data.

    Raises:
        ValueError: If no data set has that name, or its file is not the pinned one.
        ModuleNotFoundError: If the package that ships it is not installed.
    """
    return _loaded(name, MULTIMODAL)


def _loaded(name: str, known: Mapping[str, Callable[[], TableT]]) -> TableT:
    if name not in known:
        raise ValueError(f"a data set must be one of {', '.join(known)}; got {name!r}.")
    return known[name]()


__all__ = [
    "DATASETS",
    "LARGE",
    "MULTIMODAL",
    "ClinicalTable",
    "check_disjoint",
    "encode_splits",
    "encoder",
    "load",
    "load_multimodal",
    "patient_folds",
    "validate",
]
