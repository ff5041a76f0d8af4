r"""Gradient vaccine: raising the rows' cosines to targets, from their Gram matrix."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fairjax.solvers._units import usable_rows


@jax.jit
def gradvac(
    gramian: Float[Array, "R R"],
    order: Int[Array, "R R"],
    targets: Float[Array, "R R"],
    *,
    beta: float | Float[Array, ""] = 0.01,
    mask: Bool[Array, " R"] | None = None,
) -> tuple[Float[Array, "R R"], Float[Array, "R R"]]:
    r"""Raise each row's cosines with the others to targets that follow them (GradVac).

    For each row :math:`i`, start from :math:`\tilde g_i = g_i` and go through the
    other rows :math:`j` in row :math:`i`'s own order. With :math:`\phi` the cosine
    between :math:`\tilde g_i` and :math:`g_j`, where :math:`\phi < \hat\phi_{ij}`

    .. math:: \tilde g_i \leftarrow \tilde g_i
        + \frac{\|\tilde g_i\| \left(\hat\phi_{ij} \sqrt{1 - \phi^2}
        - \phi \sqrt{1 - \hat\phi_{ij}^2}\right)}
        {\|g_j\| \sqrt{1 - \hat\phi_{ij}^2}}\, g_j,

    after which the cosine is :math:`\hat\phi_{ij}`. Then the target follows:
    :math:`\hat\phi_{ij} \leftarrow (1 - \beta) \hat\phi_{ij} + \beta \phi`. With
    targets of 0 this is :func:`fairjax.solvers.project_conflicts`.

    Args:
      gramian: ``[R, R]`` inner products of the rows.
      order: ``[R, R]``; row ``i`` names the order in which the others are met.
      targets: ``[R, R]`` in (−1, 1): :math:`\hat\phi`; at first zeros.
      beta: The weight of the newest cosine in its target, in [0, 1]; may be traced.
      mask: ``[R]``; a row where it is False is left alone and out, and its targets
        stay.

    Returns:
      ``T [R, R]``, whose row ``i`` holds the coefficients of the new row ``i``, and the
      targets for the next time.

    References:
      Wang et al., *Gradient Vaccine: Investigating and Improving Multi-task
      Optimization in Massively Multilingual Models*, ICLR 2021, algorithm 1.

    Example:
      Rows of the lengths 1 and 4 with a cosine of −½: projected, at first.

      >>> import jax.numpy as jnp
      >>> from fairjax import solvers
      >>> order = jnp.array([[0, 1], [0, 1]])
      >>> gram = jnp.array([[1.0, -2.0], [-2.0, 16.0]])
      >>> rows, targets = solvers.gradvac(gram, order, jnp.zeros((2, 2)), beta=0.5)
      >>> rows
      Array([[1.   , 0.125],
             [2.   , 1.   ]], dtype=float32)
      >>> targets
      Array([[ 0.  , -0.25],
             [-0.25,  0.  ]], dtype=float32)
    """
    rows = gramian.shape[0]
    row = jnp.arange(rows)
    used = usable_rows(gramian, mask)
    norms = jnp.sqrt(jnp.where(used, jnp.diagonal(gramian), 1.0))
    # A cosine of 1 would take endlessly much of the other row.
    most = 1.0 - jnp.finfo(gramian.dtype).eps

    def raise_cosines(step, carry):
        # products[i] and lengths[i]: inner products with every row, and length, of
        # the current row i.
        coefficients, products, lengths, expected = carry
        other = order[:, step]
        meets = (other != row) & used & used[other]
        cosines = products[row, other] / norms[other]
        cosines = jnp.clip(cosines / jnp.where(lengths > 0, lengths, 1.0), -1.0, 1.0)
        wanted = expected[row, other]
        aim = jnp.clip(wanted, -most, most)
        aside = jnp.sqrt((1 - cosines) * (1 + cosines))
        aside_then = jnp.sqrt((1 - aim) * (1 + aim))
        applies = meets & (cosines < wanted) & (lengths > 0)
        share = lengths / norms[other] * (aim * aside / aside_then - cosines)
        share = jnp.where(applies, share, 0.0)
        coefficients = coefficients.at[row, other].add(share)
        products = products + share[:, None] * gramian[other]
        # What is orthogonal to the other row stays, and is aside_then of the whole.
        lengths = jnp.where(applies, lengths * aside / aside_then, lengths)
        followed = jnp.where(meets, wanted + beta * (cosines - wanted), wanted)
        expected = expected.at[row, other].set(followed)
        return coefficients, products, lengths, expected

    start = (
        jnp.eye(rows, dtype=gramian.dtype),
        gramian,
        norms,
        targets.astype(gramian.dtype),
    )
    found = jax.lax.fori_loop(0, rows, raise_cosines, start)
    return found[0], found[3].astype(targets.dtype)
