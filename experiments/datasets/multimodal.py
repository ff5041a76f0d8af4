"""Patients with several modalities: a table, and series, text or vectors beside it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from experiments.datasets.modalities import (
    Dense,
    Series,
    Text,
    check_series,
    num_patients,
    recorded,
)
from experiments.datasets.table import ClinicalTable, validate

# The name of the tabular modality, always the first.
STATIC = "static"
# Networks' statistics of a patient have these names, beside those of the modalities.
STATISTICS = ("fused", "score", "heads")


@dataclass(frozen=True, eq=False)
class MultimodalTable:
    """Patients, one row each, with a table and other modalities.

    Attributes:
        table: The label, the attributes, the ids; its `features` are the modality
            "static".
        modalities: The other modalities by name, n patients each, in the order of
            `present`'s columns after the first.
        present: `[n, 1 + len(modalities)]`, True where a patient has the modality;
            "static" first. What an absent modality's arrays hold means nothing.
        weights: `[n]` float32, mean 1: inverse-probability-of-censoring weights, or
            ones where nobody was lost to follow-up.
        left_out: Reason -> how many measurements, words or patients' modalities of
            the source were not used for it.
    """

    table: ClinicalTable
    modalities: Mapping[str, Series | Text | Dense]
    present: Bool[np.ndarray, "n m"]
    weights: Float32[np.ndarray, " n"]
    left_out: Mapping[str, int]

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities' names, as the columns of `present`."""
        return (STATIC, *self.modalities)


def validate_multimodal(data: MultimodalTable) -> MultimodalTable:
    """Returns the data unchanged, or says what is wrong with it.

    Every loader ends here; call it on data of your own before an experiment.

    Args:
        data: The data to check.

    Returns:
        The same data.

    Raises:
        ValueError: If `validate` refuses the table; there is no modality beside it; a
            modality is called "static", "fused", "score" or "heads", has another
            number of patients than the table, is missing for everyone, or is said to be
            present where it has nothing; a series is out of order, unpadded or after
            the landmark; `present` has another shape or leaves a patient without any
            modality; the weights are not finite, are negative, or their mean is not 1.

    Example:
        >>> import dataclasses
        >>> from experiments.datasets.simulated_modalities import simulate
        >>> data, _ = simulate(200, seed=0)
        >>> validate_multimodal(data).names
        ('static', 'easy', 'hard')
        >>> validate_multimodal(dataclasses.replace(data, weights=-data.weights))
        Traceback (most recent call last):
        ...
        ValueError: simulated: 200 weights are negative
    """
    name = validate(data.table).name
    rows = len(data.table.label)
    if not data.modalities:
        raise ValueError(f"{name}: there is no modality beside the table")
    if STATIC in data.modalities:
        raise ValueError(
            f"{name}: {STATIC!r} is the table's own name; call the modality otherwise"
        )
    for modality in STATISTICS:
        if modality in data.modalities:
            raise ValueError(
                f"{name}: {modality!r} is the name of a statistic of the fused model; "
                "call the modality otherwise"
            )
    for modality, content in data.modalities.items():
        if isinstance(content, Dense) and content.values.ndim != 2:
            raise ValueError(
                f"{name}: modality {modality!r} must be [patients, numbers], found "
                f"shape {content.values.shape}"
            )
        if num_patients(content) != rows:
            raise ValueError(
                f"{name}: modality {modality!r} has {num_patients(content)} patients "
                f"but the table has {rows}"
            )
    for modality, content in data.modalities.items():
        if isinstance(content, Series):
            check_series(f"{name}: modality {modality!r}", content)
    _check_present(name, data)
    _check_weights(name, data.weights, rows)
    return data


def _check_present(name: str, data: MultimodalTable) -> None:
    shape = (len(data.table.label), len(data.names))
    if data.present.shape != shape or data.present.dtype != np.bool_:
        raise ValueError(
            f"{name}: present must be boolean of shape {shape}, found "
            f"{data.present.dtype} of shape {data.present.shape}"
        )
    static = data.table.features.notna().any(axis=1).to_numpy()
    has = [static, *(recorded(content) for content in data.modalities.values())]
    for index, modality in enumerate(data.names):
        present = data.present[:, index]
        if not present.any():
            raise ValueError(f"{name}: modality {modality!r} is missing for everyone")
        empty = int((present & ~has[index]).sum())
        if empty:
            raise ValueError(
                f"{name}: modality {modality!r} is said to be present in {empty} "
                "patients for whom it has nothing"
            )
    without = int((~data.present.any(axis=1)).sum())
    if without:
        raise ValueError(f"{name}: {without} patients have no modality at all")


def _check_weights(name: str, weights: np.ndarray, rows: int) -> None:
    if weights.shape != (rows,):
        raise ValueError(f"{name}: weights has shape {weights.shape}, not ({rows},)")
    odd = int((~np.isfinite(weights)).sum())
    if odd:
        raise ValueError(f"{name}: {odd} weights are not finite")
    negative = int((weights < 0).sum())
    if negative:
        raise ValueError(f"{name}: {negative} weights are negative")
    mean = float(weights.mean(dtype=np.float64))
    if abs(mean - 1) > 1e-4:
        raise ValueError(f"{name}: the mean of the weights must be 1, found {mean:.4f}")
