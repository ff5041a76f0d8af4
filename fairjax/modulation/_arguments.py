"""Checks of the transformations' arguments."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fairjax.modulation.parameters import SHARED
from fairjax.types import is_known


def names_of(modalities: Sequence[str]) -> tuple[str, ...]:
    """Returns the modalities' names, after checks."""
    names = tuple(modalities)
    if isinstance(modalities, str) or not names or len(set(names)) < len(names):
        raise ValueError(
            f"modalities must be one or more names, each once; got {modalities!r}."
        )
    if SHARED in names:
        raise ValueError(
            f"a modality must not be named {SHARED!r}, which labels shared parameters; "
            f"got {names!r}. Rename the modality."
        )
    return names


def needed(who: str, name: str, value: Array | None) -> Array:
    """Returns an argument of an update, and refuses None."""
    if value is None:
        raise ValueError(f"{who} needs {name}: pass {name}=... to update.")
    return value


def unimodal(who: str, scores: Array | None, names: Sequence[str]) -> Array:
    """Returns unimodal scores ``[n, M]``, after checks."""
    scores = jnp.asarray(needed(who, "unimodal_scores", scores))
    if scores.ndim != 2 or scores.shape[1] != len(names):
        raise ValueError(
            f"unimodal_scores must have shape [n, {len(names)}], a column for each of "
            f"{', '.join(names)}; got shape {scores.shape}."
        )
    return scores


def fused(who: str, scores: Array | None, rows: int) -> Array:
    """Returns fused scores ``[n]``, after checks."""
    scores = jnp.asarray(needed(who, "scores", scores))
    check_shape("scores", scores, (rows,), "one for each row of unimodal_scores")
    return scores


def check_shape(name: str, value: Any, shape: tuple[int, ...], what: str) -> None:
    """Refuses an array of another shape; ``what`` says why the shape is needed."""
    if np.shape(value) != shape:
        raise ValueError(
            f"{name} must have shape {shape}, {what}; got {np.shape(value)}."
        )


def read_batch(
    shape: tuple[int, ...],
    labels: Array,
    groups: Array | None = None,
    present: Array | None = None,
    *,
    num_groups: int = 1,
) -> tuple[Array, Array | None, Array | None]:
    """Returns labels, groups and presence as arrays, after checks."""
    for name, given in (("labels", labels), ("groups", groups)):
        if given is not None:
            check_shape(name, given, shape[:1], "one for each row of scores")
    if present is not None:
        check_shape("present", present, shape, "as the scores")
    check_outcomes(labels)
    if groups is not None:
        _check_groups(groups, num_groups)
        groups = jnp.asarray(groups)
    if present is not None:
        present = jnp.asarray(present).astype(bool)
    return jnp.asarray(labels), groups, present


def check_two_groups(num_groups: int) -> None:
    """Refuses a single group, which has no gap."""
    if num_groups < 2:
        raise ValueError(
            f"a gap between groups needs two groups or more; got {num_groups}."
        )


def known_values(given: Any) -> np.ndarray | None:
    """Returns an argument's values, or None if they are not known now and here."""
    if is_known(given) and getattr(given, "is_fully_addressable", True):
        return np.asarray(given)
    return None


def check_outcomes(labels: Any) -> None:
    """Refuses codings of the classes in which one class would silently be padding."""
    values = known_values(labels)
    if values is None or not values.size:
        return
    if values.dtype.kind in "OSU":
        raise ValueError(
            f"labels must be 1 or 0, not text; got {values.flat[0]!r}. Pass a "
            "condition that is true for positives, such as labels == 'died'."
        )
    if np.any(values == 0) or not np.any(values == 1):
        return
    for other, remedy in ((2, "labels == 2, or labels == 1"), (-1, "labels > 0")):
        if np.any(values == other):
            raise ValueError(
                "labels must be 1 or 0, since rows with other values are ignored; "
                f"got 1 and {other}. Pass {remedy}."
            )


def _check_groups(groups: Any, num_groups: int) -> None:
    """Refuses groups that are not integers from 0 to G − 1 or negative."""
    values = known_values(groups)
    kind = jnp.asarray(groups).dtype if values is None else values.dtype
    wanted = f"groups must be integers from 0 to {num_groups - 1}"
    if not jnp.issubdtype(kind, jnp.integer):
        word = "text" if kind.kind in "SU" else kind.name
        raise ValueError(
            f"{wanted}; got {word}. Number them, for example by np.unique(groups, "
            "return_inverse=True)[1]."
        )
    if values is None or not values.size:
        return
    beyond = values[values >= num_groups]
    if beyond.size:
        raise ValueError(
            f"{wanted}, for num_groups={num_groups}; got larger numbers, up to "
            f"{beyond.max()}, in {beyond.size} rows, which would be ignored. Number "
            "the groups from 0."
        )
    if (values < 0).all():
        raise ValueError(
            f"{wanted}, where a negative number means no group; got negative numbers "
            "in all rows. Number the groups from 0."
        )
