"""Real patients' tables for the experiments, read from installed packages."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from experiments.datasets.encode import encode_splits, encoder
from experiments.datasets.folds import check_disjoint, patient_folds
from experiments.datasets.nhanes import nhanes
from experiments.datasets.survset import rhc, rhc_sepsis, support2, support2_sepsis
from experiments.datasets.table import NOT_RECORDED, ClinicalTable, validate

DATASETS: Mapping[str, Callable[[], ClinicalTable]] = MappingProxyType(
    {
        "support2": support2,
        "support2_sepsis": support2_sepsis,
        "rhc": rhc,
        "rhc_sepsis": rhc_sepsis,
        "nhanes": nhanes,
    }
)


def load(name: str) -> ClinicalTable:
    """Returns a data set by name.

    Args:
        name: One of `DATASETS`.

    Returns:
        The validated table.

    Raises:
        ValueError: If no data set has that name, or its file is not the pinned one.
        ModuleNotFoundError: If the package that ships it is not installed.
    """
    if name not in DATASETS:
        raise ValueError(f"no data set {name!r}; choose from {', '.join(DATASETS)}")
    return DATASETS[name]()


__all__ = [
    "DATASETS",
    "NOT_RECORDED",
    "ClinicalTable",
    "check_disjoint",
    "encode_splits",
    "encoder",
    "load",
    "patient_folds",
    "validate",
]
