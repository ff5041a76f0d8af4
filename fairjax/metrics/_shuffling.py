"""Groups exchanged among units that are alike: rows of a label, or whole patients."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from fairjax.metrics._rows import PatientRows
from fairjax.metrics.counts import BinaryRows, GroupRows

# Groups shuffled at a time, whatever the number of shuffles.
_UNITS_AT_ONCE = 2**22


class Units(NamedTuple):
    """Patients, who may exchange their groups within a stratum.

    ``unit_of_row`` is ``[rows]``, one past the last unit for a row that takes no part;
    ``counts`` is ``[units, 4]``, by label and prediction.
    """

    group: Int[Array, " units"]
    stratum: Int[Array, " units"]
    counts: Int[Array, "units 4"]
    unit_of_row: Int[Array, " rows"]


def exchangeable_units(
    labels: BinaryRows,
    predictions: BinaryRows,
    groups: GroupRows,
    patients: PatientRows,
    num_groups: int,
    within: Literal["label", "prediction"] | None,
) -> Units:
    """Patients with their groups and counts, in strata of equal numbers of rows.

    Of rows of each label, of each prediction, or of rows at all.
    """
    label, prediction = np.asarray(labels), np.asarray(predictions)
    group, patient = np.asarray(groups), np.asarray(patients)
    if patient.size and patient.min() < 0:
        raise ValueError(
            f"patients must be codes of at least 0, and {(patient < 0).sum()} of "
            f"{patient.size} are negative."
        )
    counted = (group >= 0) & (group < num_groups) & np.isin(label, (0, 1))
    counted &= np.isin(prediction, (0, 1))
    _, first, unit = np.unique(patient[counted], return_index=True, return_inverse=True)
    of_unit = group[counted][first]
    varying = np.unique(unit[group[counted] != of_unit[unit]]).size
    if varying:
        raise ValueError(
            f"The group varies within {varying} of {first.size} patients, who can "
            "then not be exchanged whole: use the p-value of gap_interval, with the "
            "covariance of cluster_rate_covariance."
        )
    cell = 2 * (label[counted] == 1) + (prediction[counted] == 1)
    cells = np.bincount(4 * unit + cell, minlength=4 * first.size).reshape(-1, 4)
    # Cells are by label and prediction: what is summed out is what may differ.
    table = cells.reshape(-1, 2, 2)
    summed = {"label": (2,), "prediction": (1,), None: (1, 2)}[within]
    profile = table.sum(summed, keepdims=True)
    stratum = np.unique(profile, axis=0, return_inverse=True)[1].reshape(-1)
    unit_of_row = np.full(label.shape, first.size)
    unit_of_row[counted] = unit
    return Units(
        jnp.asarray(of_unit, jnp.int32),
        jnp.asarray(stratum, jnp.int32),
        jnp.asarray(cells, jnp.int32),
        jnp.asarray(unit_of_row, jnp.int32),
    )


def shuffled_statistics(
    key: PRNGKeyArray,
    group: Int[Array, " units"],
    stratum: Int[Array, " units"],
    num_permutations: int,
    statistic: Callable[[Array], Float[Array, ""]],
) -> Float[Array, " num_permutations"]:
    """A statistic of the groups, shuffled within strata."""
    # Random bits order the groups within a stratum; the units themselves, by stratum,
    # are where they go. Two of 32 bits are rarely equal, and then their order is kept.
    place = jnp.argsort(stratum, stable=True)

    def one(shuffle_key):
        bits = jax.random.bits(shuffle_key, stratum.shape)
        _, _, drawn = jax.lax.sort((stratum, bits, group), num_keys=2)
        return statistic(jnp.zeros_like(group).at[place].set(drawn))

    keys = jax.random.split(key, num_permutations)
    batch = max(1, _UNITS_AT_ONCE // max(1, group.shape[0]))
    return jax.lax.map(one, keys, batch_size=min(batch, num_permutations))
