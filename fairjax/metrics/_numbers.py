"""What functions of a few numbers share: types, precision, and Student's t."""

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from fairjax._bisection import bisect

Numbers: TypeAlias = float | int | Real[Array | np.ndarray, "..."]

# Of an interval of length 1, to below its rounding errors.
HALVINGS = 50


def as_floats(*values: Numbers) -> list[Array]:
    """The values as arrays of one floating-point type, of 32 bits or more."""
    # A Python number does not decide the precision, as an array does.
    dtype = jnp.promote_types(jnp.result_type(float, *values), jnp.float32)
    return [jnp.asarray(value, dtype) for value in values]


def extremes(values: Array, kept: Array) -> tuple[Array, Array]:
    """Returns the highest and the lowest value kept, over the last axis."""
    highest = jnp.max(jnp.where(kept, values, -jnp.inf), axis=-1)
    return highest, jnp.min(jnp.where(kept, values, jnp.inf), axis=-1)


def student_t_tails(
    score: Float[Array, "*#shape"], degrees: Float[Array, "*#shape"]
) -> Float[Array, "*#shape"]:
    """The chance that a t variable lies further from 0 than the score.

    Args:
      score: At least 0.
      degrees: Degrees of freedom.

    Example:
      >>> import jax.numpy as jnp
      >>> round(student_t_tails(jnp.array(2.776), jnp.array(4.0)).item(), 3)
      0.05
    """
    # The incomplete beta function keeps small values that 1 - cdf rounds to zero.
    inside = jnp.where(jnp.isinf(score), 0.0, degrees / (degrees + score**2))
    return jax.scipy.special.betainc(degrees / 2, 0.5, inside)


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
      >>> import jax, jax.numpy as jnp
      >>> freedom = jnp.array([4.0, jnp.inf])
      >>> points = jax.jit(student_t_quantile)(jnp.array(0.025), freedom)
      >>> [round(point, 3) for point in points.tolist()]
      [2.776, 1.96]
    """
    tail, degrees = jnp.broadcast_arrays(jnp.asarray(tail), jnp.asarray(degrees))
    known, many = degrees >= 1, degrees > 100
    few = jnp.where(known & ~many, degrees, 1.0)

    def is_short(share: Array) -> Array:
        # In x = ν / (ν + t²), which lies in [0, 1] and has the tail ½ I_x(ν/2, ½).
        return jax.scipy.special.betainc(few / 2, 0.5, share) / 2 < tail

    share = bisect(is_short, jnp.zeros_like(few), jnp.ones_like(few), 40)[1]
    point = jnp.sqrt(few * (1 - share) / share)
    # With many, x is close to 1 and loses digits, but Fisher's expansion is exact.
    z = -jax.scipy.special.ndtri(tail)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    point = jnp.where(many, z + first / degrees + second / degrees**2, point)
    return jnp.where(known, point, jnp.nan)


def student_equivalent(
    z: Numbers, degrees_of_freedom: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    r"""The quantile of Student's t where the normal distribution's is ``z``.

    .. math:: t = \sqrt{\nu \left(\exp\!\left(\frac{z^2}{\nu} \left(\frac{8 \nu + 3}{8
              \nu + 1}\right)^2\right) - 1\right)}

    Wallace's approximation, as in ``cluster_interval``: a formula, unlike
    ``student_t_quantile``, for intervals that are themselves searched over ``z``, to
    where the tail is no float any more. It is exact but for a few degrees of freedom,
    and too wide there.

    Args:
      z: Normal standard errors, at least 0.
      degrees_of_freedom: Any shape, at least 1.

    Returns:
      Of that shape, at least ``z`` and at most :math:`\sqrt{\nu} e^{30}`; NaN below one
      degree of freedom.

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
    # Far out an exponential overflows; no interval is wider than all of [0, 1].
    found = jnp.sqrt(degrees * jnp.expm1(jnp.minimum(scaled**2 / degrees, 60)))
    return jnp.where(degrees >= 1, found, jnp.nan)
