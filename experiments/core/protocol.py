"""Repeated cross-validation in which every patient is tested once per repeat.

A single split cannot show the gaps of small groups, so predictions are pooled out of
fold over all patients. In lane k of a repeat, fold k tests, fold k + 1 validates, and
the other folds train. Thresholds and settings come from the validation fold.

A *lane* is one such division of the folds; all lanes of a method train side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from experiments import datasets
from experiments.datasets import ClinicalTable, patient_folds
from fairjax.evaluation import out_of_fold
from fairjax.groups import Partition, partition

LABEL = "outcome"
# Names of objectives and of rows in the reports, which an attribute of the same name
# would silently replace.
RESERVED = (LABEL, "task", "mean", "worst")


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """A table, its cells, and its rows prepared for each lane.

    Attributes:
      table: The patients.
      attributes: The sensitive attributes that methods make fair and reports audit.
      partition: Cells of the attributes × the label.
      cells: int32 ``[n]``, each patient's cell.
      folds: int ``[R, n]``, each patient's fold in each repeat.
      inputs: float32 ``[L, n, d]``, encoded with each lane's training rows only.
      train_rows: int32 ``[L, m]``, padded at the end by repeating row numbers.
      train_counts: int32 ``[L]``, how many of the training rows are not padding.
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
        """Number of repeats, R."""
        return len(self.folds)

    @property
    def num_folds(self) -> int:
        """Number of folds of a repeat."""
        return int(self.folds.max()) + 1

    @property
    def num_lanes(self) -> int:
        """Number of lanes, L: folds times repeats."""
        return self.num_repeats * self.num_folds

    def rows(self, lane: int, part: str) -> np.ndarray:
        """Returns a mask ``[n]`` of the rows that a lane trains, validates or tests on.

        ``part`` is ``"train"``, ``"valid"`` or ``"test"``.
        """
        fold = self.folds[lane // self.num_folds]
        test = lane % self.num_folds
        valid = (test + 1) % self.num_folds
        if part == "test":
            return fold == test
        if part == "valid":
            return fold == valid
        return (fold != test) & (fold != valid)

    def pool(self, scores: np.ndarray, part: str) -> np.ndarray:
        """Pools scores ``[..., L, n]`` over folds to ``[..., R, n]``.

        A patient's score comes from the lane in which the patient is in the test fold
        (``part="test"``) or in the validation fold (``part="valid"``).
        """
        lanes, rows = (self.num_repeats, self.num_folds), scores.shape[-1:]
        by_fold = scores.reshape(scores.shape[:-2] + lanes + rows)
        offset = 0 if part == "test" else -1
        return out_of_fold(by_fold, (self.folds + offset) % self.num_folds)

    def thresholds(
        self, scores: np.ndarray, weights: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns thresholds ``[..., L]`` at which validation folds select their rate.

        The selection rate equals the prevalence. With weights ``[n]``, the weighted
        selection rate is the weighted prevalence, or the smallest possible rate above.
        """
        found = np.empty(scores.shape[:-1], scores.dtype)
        label = self.table.label
        everyone = np.ones(len(label)) if weights is None else weights.astype(float)
        for lane in range(self.num_lanes):
            valid = self.rows(lane, "valid")
            own, mass = scores[..., lane, valid], everyone[valid]
            falling = np.argsort(-own, axis=-1, kind="stable")
            selected = np.cumsum(mass[falling], axis=-1)
            enough = selected >= mass @ label[valid] * (1 - 1e-9)
            last = np.argmax(enough, axis=-1)[..., None]
            row = np.take_along_axis(falling, last, axis=-1)
            found[..., lane] = np.take_along_axis(own, row, axis=-1)[..., 0]
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
    """Splits, encodes and partitions a table.

    Args:
      table: The patients.
      attributes: The table's attributes to make fair and audit.
      num_repeats: How often the whole cross-validation is repeated, on new splits.
      num_folds: Number of folds, at least 3.
      min_level_count: Categories of an attribute with fewer rows are merged.
      blind: Whether to keep the attributes out of the inputs. Attributes that are also
        features of the table (age and sex) stay.
      seed: Seed of the splits.

    Raises:
      ValueError: If `validate` refuses the table, or if ``attributes`` is empty, has an
        unknown or repeated name, or has a name that the reports use.
    """
    datasets.validate(table)
    attributes = tuple(attributes)
    unknown = [a for a in attributes if a not in table.attributes]
    if unknown or not attributes or len(set(attributes)) < len(attributes):
        raise ValueError(
            "--attributes must name some of "
            f"{', '.join(map(str, table.attributes.columns))}, each once; "
            f"got {', '.join(attributes) or 'none'}."
        )
    taken = [a for a in attributes if a in RESERVED]
    if taken:
        raise ValueError(
            f"an attribute must not be named {', '.join(RESERVED)}, which are names "
            f"in the reports; got {taken[0]!r}. Rename the attribute's column."
        )
    if not blind:
        extra = [a for a in attributes if a not in table.features]
        inputs = pd.concat([table.features, table.attributes[extra]], axis=1)
        table = replace(table, features=inputs)
    # Rare categories of the attributes are merged; the outcome may be rare.
    merged = {a: _merged(table.attributes[[a]], min_level_count) for a in attributes}
    columns = {LABEL: table.label, **merged}
    cells = partition(columns)
    rows = (table.patient_ids, table.label, table.attributes[list(attributes)])
    seeds = range(seed, seed + num_repeats)
    folds = [patient_folds(*rows, num_folds=num_folds, seed=one) for one in seeds]
    trains = [
        np.flatnonzero((own != k) & (own != (k + 1) % num_folds))
        for own in folds
        for k in range(num_folds)
    ]
    # No fold has a patient of another fold, so the parts of a lane have no patient in
    # common.
    for own in folds:
        for k in range(num_folds):
            datasets.check_disjoint(table.patient_ids, own != k, own == k)
    counts = np.array([len(rows) for rows in trains], np.int32)
    padded = np.stack([np.resize(rows, counts.max()) for rows in trains])
    return CrossValidation(
        table=table,
        attributes=attributes,
        partition=cells,
        cells=cells.encode(columns),
        folds=np.stack(folds),
        inputs=datasets.encode_splits(table, trains),
        train_rows=padded.astype(np.int32),
        train_counts=counts,
    )


def _merged(attribute: pd.DataFrame, min_level_count: int) -> "pd.Categorical[str]":
    """Returns an attribute with rare categories merged."""
    levels = partition(attribute, min_level_count=min_level_count)
    codes = levels.codes[levels.encode(attribute), 0]
    return pd.Categorical.from_codes(codes, pd.Index(levels.levels[0]))
