"""What the transformations ask of their arguments."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fairjax.modulation.parameters import SHARED
from fairjax.types import is_known


def names_of(modalities: Sequence[str]) -> tuple[str, ...]:
    names = tuple(modalities)
    if isinstance(modalities, str) or not names or len(set(names)) < len(names):
        raise ValueError(
            f"modalities are names, one or more, each once; not {modalities!r}."
        )
    if SHARED in names:
        raise ValueError(
            f"no modality may be named {SHARED!r}: it names what is shared."
        )
    return names


def needed(who: str, name: str, value: Array | None) -> Array:
    if value is None:
        raise ValueError(f"{who} needs {name}: pass {name}=... to update.")
    return value


def unimodal(who: str, scores: Array | None, names: Sequence[str]) -> Array:
    scores = jnp.asarray(needed(who, "unimodal_scores", scores))
    if scores.ndim != 2 or scores.shape[1] != len(names):
        raise ValueError(
            f"unimodal_scores have shape {scores.shape}; one column for each of "
            f"{', '.join(names)} is needed, [n, {len(names)}]."
        )
    return scores


def fused(who: str, scores: Array | None, rows: int) -> Array:
    scores = jnp.asarray(needed(who, "scores", scores))
    if scores.shape != (rows,):
        raise ValueError(
            f"scores have shape {scores.shape}; one fused score for each of the {rows} "
            f"rows of unimodal_scores is needed, [{rows}]."
        )
    return scores


def read_batch(
    shape: tuple[int, ...],
    labels: Array,
    groups: Array | None = None,
    present: Array | None = None,
    *,
    num_groups: int = 1,
) -> tuple[Array, Array | None, Array | None]:
    """Labels, groups and presence as arrays, or what is wrong with them."""
    rows = shape[0]
    for name, given in (("labels", labels), ("groups", groups)):
        if given is not None and np.shape(given) != (rows,):
            raise ValueError(
                f"{name} has shape {np.shape(given)}; there are {rows} rows of scores."
            )
    if present is not None and np.shape(present) != shape:
        raise ValueError(
            f"present has shape {np.shape(present)}; the scores have {shape}."
        )
    check_outcomes(labels)
    if groups is not None:
        _check_groups(groups, num_groups)
        groups = jnp.asarray(groups)
    if present is not None:
        present = jnp.asarray(present).astype(bool)
    return jnp.asarray(labels), groups, present


def check_two_groups(num_groups: int) -> None:
    """Refuses a single group, of which there is no gap."""
    if num_groups < 2:
        raise ValueError(
            f"a gap between groups needs two groups or more, not {num_groups}."
        )


def known_values(given: Any) -> np.ndarray | None:
    """What is given, if it is known here and now."""
    if is_known(given) and getattr(given, "is_fully_addressable", True):
        return np.asarray(given)
    return None


def check_outcomes(labels: Any) -> None:
    """Refuses codings of the classes in which one of them would silently be padding."""
    values = known_values(labels)
    if values is None or not values.size:
        return
    if values.dtype.kind in "OSU":
        raise ValueError(
            f"labels are 1 or 0, not text; the first is {values.flat[0]!r}: pass what "
            "is true of the positives, such as labels == 'died'."
        )
    if np.any(values == 0) or not np.any(values == 1):
        return
    for other, remedy in ((2, "labels == 2, or labels == 1"), (-1, "labels > 0")):
        if np.any(values == other):
            raise ValueError(
                "labels are 1 or 0, and rows of another value count for nothing; these "
                f"are 1 and {other}: pass {remedy}."
            )


def _check_groups(groups: Any, num_groups: int) -> None:
    """Refuses what is no code of a group, and codes of groups that there are not."""
    values = known_values(groups)
    kind = jnp.asarray(groups).dtype if values is None else values.dtype
    wanted = f"groups are whole numbers, 0 to {num_groups - 1}"
    if not jnp.issubdtype(kind, jnp.integer):
        word = "text" if kind.kind in "SU" else kind.name
        raise ValueError(
            f"{wanted}, not {word}: number them, for example by np.unique(groups, "
            "return_inverse=True)[1]."
        )
    if values is None or not values.size:
        return
    beyond = values[values >= num_groups]
    if beyond.size:
        raise ValueError(
            f"{wanted}, for num_groups={num_groups}; {beyond.size} rows have others, "
            f"up to {beyond.max()}, and would count for nothing: number the groups "
            "from 0."
        )
    if (values < 0).all():
        raise ValueError(
            f"{wanted}, and a negative number stands for no group; no row of these has "
            "one."
        )
