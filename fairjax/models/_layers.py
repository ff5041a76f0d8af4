"""Layers and checks of the encoders: types, dropout, learned tokens, masks, lengths."""

from collections.abc import Callable
from typing import TypedDict, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int


class LayerOptions(TypedDict, total=False):
    """Options that all layers of a model share, as Flax's layers have them.

    Attributes:
      dtype: Type of computations; by default that of inputs and parameters together.
      param_dtype: Type of the parameters; by default float32.
    """

    dtype: DTypeLike | None
    param_dtype: DTypeLike


class Dropout(nnx.Module):
    """Dropout that drops nothing when it is called without keys."""

    def __init__(self, rate: float):
        if not 0 <= rate <= 1:
            raise ValueError(f"dropout must be a fraction in [0, 1]; got {rate}.")
        self.layer = nnx.Dropout(rate)

    def __call__(self, values: Array, rngs: nnx.Rngs | None) -> Array:
        return values if rngs is None else self.layer(values, rngs=rngs)


def learned(rngs: nnx.Rngs, *shape: int, **layers: Unpack[LayerOptions]) -> nnx.Param:
    """Makes learned tokens ``[*, width]``, each with an initial norm of about 1."""
    draw = jax.nn.initializers.normal(shape[-1] ** -0.5)
    return nnx.Param(draw(rngs.params(), shape, layers.get("param_dtype", jnp.float32)))


def keep(mask: Bool[Array, "*batch"] | None) -> Callable[[Array], Array]:
    """Returns a function that zeroes masked entries and their gradients, even of NaN.

    The mask covers the leading axes of the function's argument; None keeps all entries.
    """

    def kept(values: Array) -> Array:
        if mask is None:
            return values
        wide = jnp.expand_dims(mask, tuple(range(mask.ndim, values.ndim)))
        return jnp.where(wide, values, jnp.zeros_like(values))

    return kept


def look_up(
    table: Float[Array, "V width"], ids: Int[Array, "*batch"]
) -> Float[Array, "*batch width"]:
    """Returns rows of a table; NaN for an id that the table does not have."""
    rows = table.at[ids]
    return rows.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)


def check_mask(
    mask: Bool[Array, "*places"] | None, shape: tuple[int, ...], of: str
) -> None:
    """Refuses a mask of another shape, which would be broadcast to the entries."""
    if mask is not None and mask.shape != shape:
        raise ValueError(
            f"mask must have shape {shape}, a value for each of the {of}; "
            f"got shape {mask.shape}."
        )


def check_length(length: int, max_length: int, what: str) -> None:
    """Refuses sequences that are longer than a model was made for."""
    if length > max_length:
        raise ValueError(
            f"the {what} must not be longer than max_length={max_length}; got length "
            f"{length}. Truncate the {what}, or make a model with a larger max_length."
        )
