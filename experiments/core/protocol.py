"""Repeated cross-validation in which every patient is tested once per repeat.

A single split cannot see the gaps of small groups, so predictions are pooled out of
fold over all patients. Within fold k of a repeat, fold k tests, fold k + 1 validates
(thresholds and settings come from it) and the others train.

A *lane* is one fold of one repeat; all lanes of a method train side by side.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from experiments.datasets import (
    ClinicalTable,
    check_disjoint,
    encode_splits,
    patient_folds,
    validate,
)
from fairjax.evaluation import out_of_fold
from fairjax.groups import Partition, partition

LABEL = "outcome"
# Names of objectives and of rows in the reports; an attribute of that name would
# silently take their place.
RESERVED = (LABEL, "task", "mean", "worst")


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """A table, its cells, and its rows prepared for each lane.

    Attributes:
      table: The patients.
      attributes: The sensitive attributes that are made fair and audited.
      partition: Cells of the attributes × the label.
      cells: int32 ``[n]``, each patient's cell.
      folds: int ``[R, n]``, each patient's fold in each repeat.
      inputs: float32 ``[L, n, d]``, encoded with each lane's training rows only.
      train_rows: int32 ``[L, m]``, padded at the end by repeating row numbers.
      train_counts: int32 ``[L]``, how many of them are real.
    """

    table: ClinicalTable
    attributes: tuple[str, ...]
    partition: Partition
    cells: np.ndarray
    folds: np.ndarray
    inputs: np.ndarray
    train_rows: np.ndarray
    train_counts: np.ndarray

    @property
    def num_repeats(self) -> int:
        """R."""
        return len(self.folds)

    @property
    def num_folds(self) -> int:
        """Folds of a repeat."""
        return int(self.folds.max()) + 1

    @property
    def num_lanes(self) -> int:
        """L, folds times repeats."""
        return self.num_repeats * self.num_folds

    def rows(self, lane: int, part: str) -> np.ndarray:
        """Mask ``[n]`` of the rows that a lane trains, validates or tests on."""
        fold = self.folds[lane // self.num_folds]
        test = lane % self.num_folds
        valid = (test + 1) % self.num_folds
        if part == "test":
            return fold == test
        if part == "valid":
            return fold == valid
        return (fold != test) & (fold != valid)

    def pool(self, scores: np.ndarray, part: str) -> np.ndarray:
        """Scores ``[..., L, n]`` pooled over folds: ``[..., R, n]``.

        ``part`` is ``"test"`` or ``"valid"``: the lane in which the patient is tested,
        or validates.
        """
        lanes, rows = (self.num_repeats, self.num_folds), scores.shape[-1:]
        by_fold = scores.reshape(scores.shape[:-2] + lanes + rows)
        offset = 0 if part == "test" else -1
        return out_of_fold(by_fold, (self.folds + offset) % self.num_folds)

    def thresholds(
        self, scores: np.ndarray, weights: np.ndarray | None = None
    ) -> np.ndarray:
        """Scores ``[..., L]`` at which validation folds select their prevalence.

        With weights ``[n]``, the weighted share that is selected is the weighted
        prevalence, or the least above it.
        """
        found = np.empty(scores.shape[:-1], scores.dtype)
        for lane in range(self.num_lanes):
            valid = self.rows(lane, "valid")
            if weights is None:
                quantile = 1 - self.table.label[valid].mean()
                found[..., lane] = np.quantile(
                    scores[..., lane, valid], quantile, axis=-1, method="higher"
                )
                continue
            mass = weights[valid].astype(np.float64)
            wanted = mass @ self.table.label[valid]
            falling = np.argsort(-scores[..., lane, valid], axis=-1, kind="stable")
            selected = np.cumsum(mass[falling], axis=-1)
            last = np.argmax(selected >= wanted * (1 - 1e-9), axis=-1)[..., None]
            row = np.take_along_axis(falling, last, axis=-1)
            found[..., lane] = np.take_along_axis(
                scores[..., lane, valid], row, axis=-1
            )[..., 0]
        return found


def cross_validation(
    table: ClinicalTable,
    attributes: Sequence[str],
    *,
    num_repeats: int,
    num_folds: int = 5,
    min_level_count: int = 0,
    blind: bool = False,
    seed: int,
) -> CrossValidation:
    """Split, encode and partition a table.

    Args:
      table: The patients.
      attributes: Which of the table's attributes to make fair and audit.
      num_repeats: How often the whole cross-validation is repeated, on new splits.
      num_folds: At least 3.
      min_level_count: Levels of an attribute with fewer rows are merged.
      blind: Keep the attributes out of the inputs, but for those that the table itself
        counts among its features (age and sex).
      seed: Of the splits.

    Raises:
      ValueError: A table that `validate` refuses; an attribute that it does not have,
        named twice, none, or of a name that means something else here.
    """
    validate(table)
    attributes = tuple(attributes)
    unknown = [a for a in attributes if a not in table.attributes]
    if unknown or not attributes or len(set(attributes)) < len(attributes):
        raise ValueError(
            "--attributes must name some of "
            f"{', '.join(map(str, table.attributes.columns))}, each once; "
            f"not {', '.join(attributes) or 'none'}."
        )
    taken = [a for a in attributes if a in RESERVED]
    if taken:
        raise ValueError(
            f"no attribute may be named {taken[0]!r}: the reports use that name. "
            "Rename its column."
        )
    if not blind:
        extra = [a for a in attributes if a not in table.features]
        inputs = pd.concat([table.features, table.attributes[extra]], axis=1)
        table = replace(table, features=inputs)
    # Rare levels of the attributes are merged; a rare outcome is what it is about.
    merged = {a: _merged(table.attributes[[a]], min_level_count) for a in attributes}
    columns = {LABEL: table.label, **merged}
    cells = partition(columns)
    strata = (table.label, table.attributes[list(attributes)])
    fold = functools.partial(
        patient_folds, table.patient_ids, *strata, num_folds=num_folds
    )
    folds = np.stack([fold(seed=seed + repeat) for repeat in range(num_repeats)])
    trains = [
        np.flatnonzero((folds[r] != k) & (folds[r] != (k + 1) % num_folds))
        for r in range(num_repeats)
        for k in range(num_folds)
    ]
    # A fold shares no patient with the others: so no two parts of a lane do.
    for own in folds:
        for k in range(num_folds):
            check_disjoint(table.patient_ids, own != k, own == k)
    counts = np.array([len(rows) for rows in trains], np.int32)
    padded = np.stack([np.resize(rows, counts.max()) for rows in trains])
    return CrossValidation(
        table=table,
        attributes=attributes,
        partition=cells,
        cells=cells.encode(columns),
        folds=folds,
        inputs=encode_splits(table, trains),
        train_rows=padded.astype(np.int32),
        train_counts=counts,
    )


def _merged(attribute: pd.DataFrame, min_level_count: int) -> pd.Categorical:
    """An attribute's levels, the rare ones merged."""
    levels = partition(attribute, min_level_count=min_level_count)
    codes = levels.codes[levels.encode(attribute), 0]
    names = pd.CategoricalDtype(list(levels.levels[0]))
    return pd.Categorical.from_codes(codes, dtype=names)
