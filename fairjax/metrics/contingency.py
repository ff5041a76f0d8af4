"""Random contingency tables with fixed margins, for exact permutation tests.

Shuffling a column of ``n`` rows and counting again costs a sort of ``n`` rows a draw,
but the table that comes out has a known distribution, the multivariate hypergeometric,
and it can be drawn directly at a cost that grows with the square root of ``n``.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray


@functools.partial(jax.jit, static_argnames=("num_draws", "max_total"))
def random_tables(
    key: PRNGKeyArray,
    row_totals: Int[Array, " rows"],
    column_totals: Int[Array, " columns"],
    *,
    num_draws: int,
    max_total: int,
) -> Int[Array, "draws rows columns"]:
    """Tables of two columns shuffled against each other, given their level counts.

    The cells are drawn one after another from their conditional hypergeometric
    distributions. Probabilities are float32, so each is right to about 1e-6.

    Args:
      key: A random key.
      row_totals: ``[rows]``, the number of units at each level of one column.
      column_totals: ``[columns]``, the same of the other; of the same sum.
      num_draws: How many tables.
      max_total: At least the sum of the totals; static.

    Returns:
      Independent tables, each with the margins given.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> rows, columns = jnp.array([3, 5]), jnp.array([6, 2])
      >>> tables = random_tables(
      ...     jax.random.key(0), rows, columns, num_draws=2, max_total=8
      ... )
      >>> tables.sum(axis=2).tolist(), tables.sum(axis=1).tolist()
      ([[3, 5], [3, 5]], [[6, 2], [6, 2]])
    """
    num_rows, num_columns = row_totals.shape[0], column_totals.shape[0]
    uniforms = jax.random.uniform(key, (num_draws, num_rows, num_columns - 1))
    # The variance of a hypergeometric is at most about n/16, so this window reaches ten
    # standard deviations to either side, and all values where n is small.
    reach = math.ceil(2.5 * math.sqrt(max_total)) + 16
    window = min(max_total, 2 * reach) + 1

    def fill_row(remaining, row):
        total, uniform = row
        cells = []
        for column in range(num_columns - 1):
            cell = _hypergeometric(
                uniform[column],
                remaining[column],
                jnp.sum(remaining[column + 1 :]),
                total - sum(cells),
                window,
            )
            cells.append(cell)
        cells = jnp.stack([*cells, total - sum(cells)])
        return remaining - cells, cells

    def fill(uniform):
        return jax.lax.scan(fill_row, column_totals, (row_totals, uniform))[1]

    # Bounds the memory: about 2**22 floats at a time, whatever the number of draws.
    return jax.lax.map(fill, uniforms, batch_size=max(1, 2**22 // window))


def _hypergeometric(
    uniform: Float[Array, ""],
    good: Int[Array, ""],
    bad: Int[Array, ""],
    draws: Int[Array, ""],
    window: int,
) -> Int[Array, ""]:
    """The number of good units among ``draws`` without replacement, by inversion."""
    lowest, highest = jnp.maximum(draws - bad, 0), jnp.minimum(draws, good)
    population = jnp.maximum(good + bad, 1).astype(float)
    mean = jnp.floor(draws * (good / population)).astype(good.dtype)
    start = jnp.maximum(lowest, mean - window // 2)
    value = start + jnp.arange(window, dtype=good.dtype)
    # Ratios of neighbouring probabilities need no factorials, whose logarithms are too
    # large for float32.
    inside = value < highest
    ratio = jnp.where(inside, ((good - value) / (value + 1)), 1) * jnp.where(
        inside, (draws - value) / (bad - draws + value + 1), 1
    )
    steps = jnp.cumsum(jnp.log(ratio))
    log_mass = jnp.concatenate([jnp.zeros(1), steps[:-1]])
    log_mass = jnp.where(value <= highest, log_mass, -jnp.inf)
    cumulative = jnp.cumsum(jnp.exp(log_mass - jnp.max(log_mass)))
    below = cumulative <= uniform * cumulative[-1]
    # Rounding may bring a uniform just below one up to the whole mass.
    index = jnp.minimum(jnp.sum(below), jnp.sum(cumulative < cumulative[-1]))
    return start + index.astype(good.dtype)
