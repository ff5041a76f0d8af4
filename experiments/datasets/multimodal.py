"""Patients with several modalities: a table, and series, text or vectors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float32

from experiments.datasets import modalities
from experiments.datasets.modalities import Dense, Series, Text
from experiments.datasets.table import ClinicalTable, counted, validate

# The name of the tabular modality, always the first.
STATIC = "static"
# Networks' statistics have these names, in addition to the modalities' names.
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
            "static" first. The values of an absent modality are meaningless.
        weights: `[n]` float32, mean 1: inverse-probability-of-censoring weights, or
            ones where nobody was lost to follow-up.
        left_out: Reason -> how many measurements, words or patients' modalities of
            the source were not used.
    """

    table: ClinicalTable
    modalities: Mapping[str, Series | Text | Dense]
    present: Bool[np.ndarray, "n m"]
    weights: Float32[np.ndarray, " n"]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities' names, in the order of the columns of `present`."""
        return (STATIC, *self.modalities)


def validate_multimodal(data: MultimodalTable) -> MultimodalTable:
    """Checks multimodal data, and returns the data unchanged.

    Every loader calls this function; call it on your own data before an experiment.

    Args:
        data: The data to check.

    Returns:
        The same data.

    Raises:
        ValueError: If `validate` refuses the table; there is no modality beside the
            table; a modality is called "static", "fused", "score" or "heads", has
            another number of patients than the table, is missing for everyone, or is
            marked as present where it has no values; a series is out of order, unpadded
            or after the landmark; `present` has another shape or leaves a patient
            without any modality; weights are not finite or are negative, or their mean
            is not 1.

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
    problem = next(_problems(data), None)
    if problem is not None:
        raise ValueError(f"{name}: {problem}")
    return data


def _problems(data: MultimodalTable) -> Iterator[str]:
    """Yields problems beside the table; only the first is sure to make sense."""
    rows = len(data.table.label)
    if not data.modalities:
        yield "there is no modality beside the table"
    statistic = "the name of a statistic of the fused model"
    taken = {**dict.fromkeys(STATISTICS, statistic), STATIC: "the table's own name"}
    for name, content in data.modalities.items():
        if name in taken:
            yield f"{name!r} is {taken[name]}; rename the modality"
        what = f"modality {name!r}"
        if isinstance(content, Dense) and content.values.ndim != 2:
            found = f"got shape {content.values.shape}"
            yield f"{what} must be [patients, numbers]; {found}"
        number = modalities.num_patients(content)
        if number != rows:
            yield f"{what} has {number} patients but the table has {rows}"
        if isinstance(content, Series):
            problems = modalities.series_problems(content)
            yield from (f"{what}: {problem}" for problem in problems)
    yield from _of_presence(data, (rows, len(data.names)))
    yield from _of_weights(data.weights, rows)


def _of_presence(data: MultimodalTable, shape: tuple[int, int]) -> Iterator[str]:
    if data.present.shape != shape or data.present.dtype != np.bool_:
        found = f"{data.present.dtype} of shape {data.present.shape}"
        yield f"present must be boolean of shape {shape}; got {found}"
    static = data.table.features.notna().any(axis=1).to_numpy()
    has = [static, *map(modalities.recorded, data.modalities.values())]
    for name, present, own in zip(data.names, data.present.T, has, strict=True):
        if not present.any():
            yield f"modality {name!r} is missing for everyone"
        marked = f"modality {name!r} is marked as present in"
        yield from counted(marked, present & ~own, "patients without values")
    without = ~data.present.any(axis=1)
    yield from counted("", without, "patients have no modality at all")


def _of_weights(weights: np.ndarray, rows: int) -> Iterator[str]:
    if weights.shape != (rows,):
        yield f"weights must have shape ({rows},); got {weights.shape}"
    yield from counted("", ~np.isfinite(weights), "weights are not finite")
    yield from counted("", weights < 0, "weights are negative")
    mean = float(weights.mean(dtype=np.float64))
    if abs(mean - 1) > 1e-4:
        yield f"the mean of the weights must be 1; got {mean:.4f}"
