"""Elementwise bisection of intervals of floats, or of positions in sorted rows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Real


def bisect(
    is_below: Callable[[Array], Bool[Array, "..."]],
    low: Real[Array, "..."],
    high: Real[Array, "..."],
    steps: int,
) -> tuple[Real[Array, "..."], Real[Array, "..."]]:
    """Halves intervals a given number of times.

    Args:
      is_below: Returns whether points lie below the point that is sought.
      low: Lower ends, of any shape; floats, or integers for positions.
      high: Upper ends, of the same shape. For positions, one past the last position;
        ``is_below`` must accept it, since empty intervals evaluate it.
      steps: Number of halvings. For positions, the bit length of their number suffices.

    Returns:
      The last ends, which enclose the point that is sought. For positions, both ends
      are the first position that is not below.

    Example:
      >>> low, high = bisect(lambda x: x**2 < 2, jnp.array(0.0), jnp.array(2.0), 20)
      >>> round(low.item(), 4), round(high.item(), 4)
      (1.4142, 1.4142)
      >>> row = jnp.array([10, 20, 30])
      >>> bisect(lambda i: row[i] < 15, jnp.array(0), jnp.array(3), 2)[0].item()
      1
    """
    positions = jnp.issubdtype(low.dtype, jnp.integer)

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) // 2 if positions else (low + high) / 2
        below = is_below(middle)
        if positions:
            below &= low < high
        return (
            jnp.where(below, middle + 1 if positions else middle, low),
            jnp.where(below, high, middle),
        )

    return jax.lax.fori_loop(0, steps, halve, (low, high))
