"""What the encoders share: dropout, learned tokens, masks, and checks of lengths."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int


class Dropout(nnx.Module):
    """Dropout that drops nothing where it is given no keys."""

    def __init__(self, rate: float):
        if not 0 <= rate <= 1:
            raise ValueError(f"dropout must be a fraction in [0, 1]; got {rate}.")
        self.layer = nnx.Dropout(rate)

    def __call__(self, values: Array, rngs: nnx.Rngs | None) -> Array:
        return values if rngs is None else self.layer(values, rngs=rngs)


def learned(rngs: nnx.Rngs, *shape: int) -> nnx.Param:
    """Learned tokens ``[*, width]``, each of length about 1 at first."""
    draw = jax.nn.initializers.normal(shape[-1] ** -0.5)
    return nnx.Param(draw(rngs.params(), shape))


def keep(mask: Bool[Array, "*batch"] | None) -> Callable[[Array], Array]:
    """A function that puts 0 where nothing is; no NaN there spreads, nor its gradient.

    The mask covers the leading axes of what the function is given; None keeps all.
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
    """Rows of a table; NaN for an id that it does not have, rather than another row."""
    rows = table.at[ids]
    return rows.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)


def check_mask(
    mask: Bool[Array, "*places"] | None, shape: tuple[int, ...], of: str
) -> None:
    """Refuse a mask of another shape, which would be spread over what it covers."""
    if mask is not None and mask.shape != shape:
        raise ValueError(
            f"mask has the shape {mask.shape}; a value for each of the {of}, {shape}, "
            "is needed."
        )


def check_length(length: int, max_length: int, what: str) -> None:
    """Refuse sequences that are longer than a model was made for."""
    if length > max_length:
        raise ValueError(
            f"the {what} of this batch are {length} long, and the model allows "
            f"max_length={max_length}: truncate them, or make the model with a larger "
            "max_length."
        )
