"""What functions of a few numbers share: their types and precision."""

from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Real

Numbers: TypeAlias = float | int | Real[Array | np.ndarray, "..."]

# Of an interval of length 1, to below its rounding errors.
HALVINGS = 50


def as_floats(*values: Numbers) -> list[Array]:
    """The values as arrays of one floating-point type, of 32 bits or more."""
    # A Python number does not decide the precision, as an array does.
    dtype = jnp.promote_types(jnp.result_type(float, *values), jnp.float32)
    return [jnp.asarray(value, dtype) for value in values]
