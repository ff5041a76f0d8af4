"""What the transformations ask of their arguments."""

from collections.abc import Sequence

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
    return jnp.asarray(value)


def unimodal(who: str, scores: Array | None, names: Sequence[str]) -> Array:
    scores = needed(who, "unimodal_scores", scores)
    if scores.ndim != 2 or scores.shape[1] != len(names):
        raise ValueError(
            f"unimodal_scores have shape {scores.shape}; one column for each of "
            f"{', '.join(names)} is needed, [n, {len(names)}]."
        )
    return scores


def fused(who: str, scores: Array | None, rows: int) -> Array:
    scores = needed(who, "scores", scores)
    if scores.shape != (rows,):
        raise ValueError(
            f"scores have shape {scores.shape}; one fused score for each of the {rows} "
            f"rows of unimodal_scores is needed, [{rows}]."
        )
    return scores


def check_batch(
    shape: tuple[int, ...],
    labels: Array,
    groups: Array | None = None,
    present: Array | None = None,
) -> None:
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
    if is_known(labels) and getattr(labels, "is_fully_addressable", True):
        _check_coding(np.asarray(labels))


def _check_coding(labels: np.ndarray) -> None:
    """Refuses -1 and 1 for the classes, which would silently be padding and 1."""
    if np.any(labels == -1) and np.any(labels == 1) and not np.any(labels == 0):
        raise ValueError(
            "labels are 1 or 0, and rows of another value count for nothing; these are "
            "1 and -1: pass labels > 0."
        )
