"""What the transformations ask of their arguments."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array


def names_of(modalities: Sequence[str]) -> tuple[str, ...]:
    names = tuple(modalities)
    if isinstance(modalities, str) or not names or len(set(names)) < len(names):
        raise ValueError(
            f"modalities are names, one or more, each once; not {modalities!r}."
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
