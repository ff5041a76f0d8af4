"""Bisection, elementwise: of intervals of floats, or of positions in sorted rows."""

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
    """Halves intervals until little is left of them.

    Args:
      is_below: Whether points lie below what is sought: True for all that do, and False
        for all others.
      low: Any shape, lower ends.
      high: The same shape, upper ends. Of positions they are one past the last, which
        ``is_below`` is also asked about, where the interval is empty.
      steps: How often to halve. Positions ask for the bit length of their number.

    Returns:
      The ends that are left, which enclose what is sought; of positions, both the first
      that is not below.

    Example:
      >>> low, high = bisect(lambda x: x**2 < 2, jnp.array(0.0), jnp.array(2.0), 20)
      >>> round(low.item(), 4), round(high.item(), 4)
      (1.4142, 1.4142)
      >>> row = jnp.array([10, 20, 30])
      >>> bisect(lambda i: row[i] < 15, jnp.array(0), jnp.array(3), 2)[0].item()
      1
    """
    whole = jnp.issubdtype(low.dtype, jnp.integer)

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) // 2 if whole else (low + high) / 2
        below = is_below(middle)
        if whole:
            below &= low < high
        return (
            jnp.where(below, middle + 1 if whole else middle, low),
            jnp.where(below, high, middle),
        )

    return jax.lax.fori_loop(0, steps, halve, (low, high))
