"""Quantiles of Student's t distribution, which JAX does not have."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def student_t_quantile(
    tail: Float[Array, "*#shape"], degrees: Float[Array, "*#shape"]
) -> Float[Array, "*#shape"]:
    """The point that a t variable exceeds with a chance of ``tail``.

    Args:
      tail: In (0, ½].
      degrees: Degrees of freedom; infinite for the normal distribution. NaN below 1.

    Returns:
      At least 0.

    Example:
      >>> import jax.numpy as jnp
      >>> points = student_t_quantile(jnp.array(0.025), jnp.array([4.0, jnp.inf]))
      >>> [round(point, 3) for point in points.tolist()]
      [2.776, 1.96]
    """
    tail, degrees = jnp.broadcast_arrays(jnp.asarray(tail), jnp.asarray(degrees))
    known, many = degrees >= 1, degrees > 100
    few = jnp.where(known & ~many, degrees, 1.0)

    def halve(_, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        # In x = ν / (ν + t²), which lies in [0, 1] and has the tail ½ I_x(ν/2, ½).
        low, high = ends
        middle = (low + high) / 2
        short = jax.scipy.special.betainc(few / 2, 0.5, middle) / 2 < tail
        return jnp.where(short, middle, low), jnp.where(short, high, middle)

    ends = (jnp.zeros_like(few), jnp.ones_like(few))
    share = jax.lax.fori_loop(0, 40, halve, ends)[1]
    point = jnp.sqrt(few * (1 - share) / share)
    # With many, x is close to 1 and loses digits, but Fisher's expansion is exact.
    z = -jax.scipy.special.ndtri(tail)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    point = jnp.where(many, z + first / degrees + second / degrees**2, point)
    return jnp.where(known, point, jnp.nan)
