"""Bootstrap of counts, and intervals from replicates.

Rates and their gaps depend on the data only through the counts, so
``multinomial_bootstrap`` redraws these, at a cost that does not grow with the rows.
Rankings and clustered rows need row weights: :mod:`fairjax.metrics.resampling`.

Percentile intervals of a *gap* are wrong near parity, whatever is resampled: use
:mod:`fairjax.metrics.gap_intervals` there.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from fairjax.metrics._rows import check_sizes, check_unweighted
from fairjax.metrics.counts import GroupCounts
from fairjax.metrics.intervals import Interval, normal_quantile
from fairjax.types import check_choice


@functools.partial(jax.jit, static_argnames=("num_replicates", "within"))
def multinomial_bootstrap(
    key: PRNGKeyArray,
    counts: GroupCounts,
    *,
    num_replicates: int,
    within: Literal["table", "group", "label"] = "group",
) -> GroupCounts:
    """Counts of resampled rows, drawn without the rows.

    Exactly the distribution of resampling rows with replacement and counting again:
    the four cells of a group are multinomial, drawn one after another from their
    conditional binomial distributions.

    Args:
      key: A random key.
      counts: ``[G, 2, 2]`` of unweighted, independent rows: integers, at most ``2**24``
        rows to a group.
      num_replicates: Number of resamples, ``B``.
      within: What keeps its size. ``"group"``: every group. ``"label"``: the positives
        and the negatives of every group, for rates given the label. ``"table"``: only
        the table, as when rows are resampled without regard to groups; a small group
        may then vanish.

    Returns:
      ``[B, G, 2, 2]``, int32; a rate or gap of it is ``[B, G]`` or ``[B]``.

    Raises:
      ValueError: If the counts are not integers, ``num_replicates`` is below 1, or
        ``within`` is something else.

    References:
      Efron and Tibshirani, "An Introduction to the Bootstrap" (1993).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> counts = GroupCounts(jnp.array([[[40, 10], [6, 14]], [[42, 8], [9, 11]]]))
      >>> drawn = multinomial_bootstrap(jax.random.key(0), counts, num_replicates=3)
      >>> drawn.counts.sum(axis=(2, 3)).tolist()
      [[70, 70], [70, 70], [70, 70]]
    """
    table = jnp.asarray(counts.counts)
    check_unweighted(table, "The bootstrap of counts")
    check_sizes(num_replicates=num_replicates)
    check_choice("within", within, "table", "group", "label")
    groups = table.shape[0]
    rows = {"table": (1, -1), "group": (groups, 4), "label": (groups * 2, 2)}[within]
    cells = table.reshape(rows)
    totals = jnp.broadcast_to(jnp.sum(cells, 1), (num_replicates, cells.shape[0]))
    drawn = _multinomial(key, totals, cells)
    return GroupCounts(drawn.reshape(num_replicates, *table.shape))


def _multinomial(key: PRNGKeyArray, totals: Array, cells: Array) -> Array:
    """``[B, rows, cells]`` of these totals, ``[B, rows]``, in the cells' shares."""
    # What comes after each cell, so that the shares are exact and end at exactly 1.
    after = jnp.cumsum(cells[:, ::-1], axis=1)[:, ::-1]
    share = cells / jnp.maximum(after, 1)

    def draw(left, cell):
        chance, cell_key = cell
        count = jax.random.binomial(cell_key, left.astype(float), chance)
        count = jnp.clip(count.astype(jnp.int32), 0, left)
        return left - count, count

    keys = jax.random.split(key, cells.shape[1] - 1)
    left, drawn = jax.lax.scan(draw, totals.astype(jnp.int32), (share.T[:-1], keys))
    return jnp.moveaxis(jnp.concatenate([drawn, left[None]]), 0, -1)


def bootstrap_interval(
    replicates: Float[Array | np.ndarray, "replicates ..."],
    estimate: Float[Array | np.ndarray, "..."],
    *,
    confidence: float = 0.95,
    method: Literal["percentile", "basic", "bias_corrected"] = "percentile",
) -> Interval:
    r"""Interval from bootstrap replicates.

    With :math:`q_a` the quantiles of the replicates, :math:`\hat\theta` the estimate
    and :math:`\alpha` one less the confidence,

    .. math:: \text{percentile: } [q_{\alpha/2}, q_{1-\alpha/2}], \qquad
              \text{basic: } [2\hat\theta - q_{1-\alpha/2},
              2\hat\theta - q_{\alpha/2}],

    and the bias-corrected one takes the quantiles at :math:`\Phi(2 z_0 \mp
    z_{\alpha/2})`, where :math:`z_0` is the normal score of the share of replicates
    below the estimate (half of those equal to it).

    None of them is valid for a gap near parity, nor for few rows: ten positives give
    a 95 % interval that holds in about two thirds of cases.

    Args:
      replicates: ``[B, ...]``; NaN replicates are left out.
      estimate: ``[...]``.
      confidence: In (0, 1).
      method: As above.

    Returns:
      Ends ``[...]``; NaN where the estimate is.

    Raises:
      ValueError: With a confidence outside (0, 1), or another method.

    References:
      Efron, "Better bootstrap confidence intervals", JASA 82 (1987).

    Example:
      >>> import jax.numpy as jnp
      >>> replicates = jnp.linspace(0, 1, 101)
      >>> interval = bootstrap_interval(replicates, jnp.array(0.4), confidence=0.9)
      >>> round(interval.lower.item(), 3), round(interval.upper.item(), 3)
      (0.05, 0.95)
    """
    z = normal_quantile(confidence)
    check_choice("method", method, "percentile", "basic", "bias_corrected")
    replicates, estimate = jnp.asarray(replicates), jnp.asarray(estimate)
    tail = (1 - confidence) / 2
    if method == "bias_corrected":
        known = ~jnp.isnan(replicates)
        below = (replicates < estimate) + 0.5 * (replicates == estimate)
        share = jnp.sum(below, 0, where=known) / jnp.maximum(jnp.sum(known, 0), 1)
        middle = 2 * jax.scipy.special.ndtri(share)
        lower, upper = (
            _quantile(replicates, jax.scipy.special.ndtr(middle + end))
            for end in (-z, z)
        )
    else:
        lower, upper = (
            jnp.nanquantile(replicates, share, axis=0) for share in (tail, 1 - tail)
        )
    if method == "basic":
        lower, upper = 2 * estimate - upper, 2 * estimate - lower
    return Interval(lower, upper).where(~jnp.isnan(estimate))


def _quantile(replicates: Array, share: Array) -> Array:
    """The replicates' quantile at a share that differs from entry to entry."""
    flat = replicates.reshape(replicates.shape[0], -1)
    found = jax.vmap(jnp.nanquantile, in_axes=(1, 0))(flat, share.reshape(-1))
    return found.reshape(share.shape)
