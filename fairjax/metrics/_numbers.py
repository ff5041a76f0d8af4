"""Types and precision of functions of a few numbers, and Student's t."""

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from fairjax._bisection import bisect

Numbers: TypeAlias = float | int | Real[Array | np.ndarray, "..."]

# Halvings of an interval of length 1 to below its rounding errors.
HALVINGS = 50


def as_floats(*values: Numbers) -> list[Array]:
    """Returns the values as arrays of one floating-point type, of 32 bits or more."""
    # Arrays decide the precision, Python numbers do not.
    dtype = jnp.promote_types(jnp.result_type(float, *values), jnp.float32)
    return [jnp.asarray(value, dtype) for value in values]


def extremes(values: Array, kept: Array) -> tuple[Array, Array]:
    """Returns the highest and the lowest of the kept values, over the last axis."""
    highest = jnp.max(jnp.where(kept, values, -jnp.inf), axis=-1)
    return highest, jnp.min(jnp.where(kept, values, jnp.inf), axis=-1)


def student_t_tails(
    score: Float[Array, "*#shape"], degrees: Float[Array, "*#shape"]
) -> Float[Array, "*#shape"]:
    """Computes the probability that a t variable is further from 0 than the score.

    Args:
      score: At least 0.
      degrees: Degrees of freedom.

    Example:
      >>> import jax.numpy as jnp
      >>> round(student_t_tails(jnp.array(2.776), jnp.array(4.0)).item(), 3)
      0.05
    """
    # The incomplete beta function keeps small values, which 1 - cdf rounds to zero.
    inside = jnp.where(jnp.isinf(score), 0.0, degrees / (degrees + score**2))
    return jax.scipy.special.betainc(degrees / 2, 0.5, inside)


def student_t_quantile(
    tail: Float[Array, "*#shape"], degrees: Float[Array, "*#shape"]
) -> Float[Array, "*#shape"]:
    """Computes the value that a t variable exceeds with probability ``tail``.

    Args:
      tail: In (0, ½].
      degrees: Degrees of freedom; infinite for the normal distribution.

    Returns:
      The quantile, at least 0; NaN below one degree of freedom.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> freedom = jnp.array([4.0, jnp.inf])
      >>> points = jax.jit(student_t_quantile)(jnp.array(0.025), freedom)
      >>> [round(point, 3) for point in points.tolist()]
      [2.776, 1.96]
    """
    tail, degrees = jnp.broadcast_arrays(jnp.asarray(tail), jnp.asarray(degrees))
    known, many = degrees >= 1, degrees > 100
    few = jnp.where(known & ~many, degrees, 1.0)

    def is_short(x: Array) -> Array:
        # x = ν / (ν + t²) lies in [0, 1] and has the tail ½ I_x(ν/2, ½).
        return jax.scipy.special.betainc(few / 2, 0.5, x) / 2 < tail

    x = bisect(is_short, jnp.zeros_like(few), jnp.ones_like(few), 40)[1]
    point = jnp.sqrt(few * (1 - x) / x)
    # With many degrees x is close to 1 and loses digits; Fisher's expansion is exact.
    z = -jax.scipy.special.ndtri(tail)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    point = jnp.where(many, z + first / degrees + second / degrees**2, point)
    return jnp.where(known, point, jnp.nan)


def student_equivalent(
    z: Numbers, degrees_of_freedom: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    r"""Computes the quantile of Student's t that matches the normal quantile ``z``.

    .. math:: t = \sqrt{\nu \left(\exp\!\left(\frac{z^2}{\nu} \left(\frac{8 \nu + 3}{8
              \nu + 1}\right)^2\right) - 1\right)}

    This is Wallace's approximation, as in ``cluster_interval``. Unlike
    ``student_t_quantile`` the result is a closed formula, for intervals that are
    searched over ``z``, even where the tail probability is too small for a float. The
    approximation is accurate except for few degrees of freedom, where it is too wide.

    Args:
      z: Normal standard errors, at least 0.
      degrees_of_freedom: Any shape, at least 1.

    Returns:
      The quantile in the shape of ``degrees_of_freedom``, at least ``z`` and at most
      :math:`\sqrt{\nu} e^{30}`; NaN below one degree of freedom.

    References:
      Wallace, "Bounds on normal approximations to Student's and the chi-square
      distributions", Annals of Mathematical Statistics 30 (1959).

    Example:
      >>> import jax.numpy as jnp
      >>> round(student_equivalent(1.96, jnp.array(10.0)).item(), 2)
      2.23
    """
    degrees = degrees_of_freedom
    scaled = jnp.asarray(z, degrees.dtype) * (8 * degrees + 3) / (8 * degrees + 1)
    # The cap prevents an overflow; intervals are then already all of [0, 1].
    quantile = jnp.sqrt(degrees * jnp.expm1(jnp.minimum(scaled**2 / degrees, 60)))
    return jnp.where(degrees >= 1, quantile, jnp.nan)
