"""Splits by patient: no patient is on both sides of a split."""

import numpy as np
import pandas as pd
from jaxtyping import Int, Shaped
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold


def patient_folds(
    patient_ids: Shaped[np.ndarray, " rows"],
    label: Int[np.ndarray, " n"],
    attributes: pd.DataFrame | None = None,
    *,
    num_folds: int,
    seed: int,
) -> Int[np.ndarray, " n"]:
    """Returns each row's fold, with every patient in one fold.

    Folds are balanced by label and, where `attributes` is given, by label within each
    combination of attribute categories, as far as whole patients allow. Combinations
    with fewer rows than folds are balanced together, by label.

    Args:
        patient_ids: `[n]`, one id for each patient.
        label: `[n]` integers; each value in at least `num_folds` rows.
        attributes: `[n, a]`, or None to balance by label alone.
        num_folds: At least 2 and at most the number of patients.
        seed: Seed of the shuffle; the same seed gives the same folds.

    Returns:
        `[n]` fold numbers in `0 .. num_folds - 1`.

    Raises:
        ValueError: If lengths differ, `num_folds` is below 2 or above the number of
            patients, or a label value has fewer rows than there are folds.

    Example:
        >>> import numpy as np
        >>> fold = patient_folds(np.array([7, 7, 8, 9]), np.array([1, 0, 1, 0]),
        ...                      num_folds=2, seed=0)
        >>> bool(fold[0] == fold[1])
        True
    """
    rows = len(label)
    if len(patient_ids) != rows:
        raise ValueError(f"patient_ids has {len(patient_ids)} rows, label has {rows}")
    patients = len(pd.unique(patient_ids))
    if not 2 <= num_folds <= patients:
        raise ValueError(
            f"num_folds must be between 2 and the number of patients, {patients}; "
            f"got {num_folds}"
        )
    values, counts = np.unique(label, return_counts=True)
    if counts.min() < num_folds:
        raise ValueError(
            f"label {values[counts.argmin()]} has {counts.min()} rows, too few for "
            f"{num_folds} folds"
        )
    strata = np.asarray(label)
    if attributes is not None:
        if len(attributes) != rows:
            raise ValueError(f"attributes has {len(attributes)} rows, label has {rows}")
        strata = _cells(strata, attributes, smallest=num_folds)
    # One row per patient needs no grouping, and the plain splitter is far faster.
    plain = patients == rows
    splitter = (StratifiedKFold if plain else StratifiedGroupKFold)(
        n_splits=num_folds, shuffle=True, random_state=seed
    )
    splits = splitter.split(strata, strata, None if plain else patient_ids)
    fold = np.empty(rows, dtype=np.int64)
    for index, (_, test) in enumerate(splits):
        fold[test] = index
    return fold


def _cells(label: np.ndarray, attributes: pd.DataFrame, smallest: int) -> np.ndarray:
    """Numbers the cells label x attributes; those below `smallest` rows by label."""
    keys = [attributes[column].to_numpy() for column in attributes.columns]
    cell = pd.DataFrame(dict(enumerate([label, *keys]))).groupby(
        list(range(len(keys) + 1)), dropna=False
    )
    number = cell.ngroup().to_numpy(copy=True)
    rare = cell[0].transform("size").to_numpy() < smallest
    for value in np.unique(label):
        merged = rare & (label == value)
        # If there are too few even together, they join the label's largest cell.
        same = number[label == value]
        target = -1 - value if merged.sum() >= smallest else np.bincount(same).argmax()
        number[merged] = target
    return number


def check_disjoint(
    patient_ids: Shaped[np.ndarray, " n"],
    train: Shaped[np.ndarray, " i"],
    test: Shaped[np.ndarray, " j"],
) -> None:
    """Raises if a patient has rows in both parts of a split.

    Args:
        patient_ids: `[n]`, one id for each patient.
        train: Row numbers, or a boolean mask `[n]`.
        test: Row numbers, or a boolean mask `[n]`.

    Raises:
        ValueError: If a patient is in both; the message says how many patients are.

    Example:
        >>> import numpy as np
        >>> check_disjoint(np.array([7, 8, 9]), np.array([0]), np.array([1, 2]))
    """
    shared = np.intersect1d(patient_ids[train], patient_ids[test])
    if len(shared):
        raise ValueError(
            f"{len(shared)} patients have rows in both the training and the test "
            f"part, for example {shared[0]!s}; split by patient (`patient_folds`)"
        )
