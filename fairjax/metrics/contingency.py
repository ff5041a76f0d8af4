"""Random contingency tables with fixed margins, for exact permutation tests.

Shuffling a column of ``n`` rows and counting again costs a sort of ``n`` rows for each
draw. The resulting table has a known distribution, the multivariate hypergeometric. A
direct draw from this distribution has a cost that does not grow with ``n``.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

# Up to this standard deviation of a cell, its probabilities are summed.
_EXACT_UP_TO = 20.0


@functools.partial(jax.jit, static_argnames=("num_draws", "max_total"))
def random_tables(
    key: PRNGKeyArray,
    row_totals: Int[Array, " rows"],
    column_totals: Int[Array, " columns"],
    *,
    num_draws: int,
    max_total: int,
) -> Int[Array, "draws rows columns"]:
    """Draws tables of two columns shuffled against each other, given their margins.

    The cells are drawn one after another from their conditional hypergeometric
    distributions, by inversion. Where a cell's standard deviation is at most 20, the
    draws use the probabilities, accurate to about 1e-6 in float32. Beyond, the draws
    use the Cornish-Fisher expansion, with probabilities accurate to about 1e-4.

    Args:
      key: A random key.
      row_totals: ``[rows]``, the number of units in each category of one column.
      column_totals: ``[columns]``, the number of units in each category of the other
        column, with the same sum.
      num_draws: Number of tables.
      max_total: An upper bound of the sum of the totals; static.

    Returns:
      Independent tables, each with the given margins.

    References:
      Fisher and Cornish, "The percentile points of distributions having known
      cumulants", Technometrics 2 (1960).

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
    # Ten standard deviations to either side; a standard deviation is at most
    # sqrt(n) / 4.
    largest = min(_EXACT_UP_TO, math.sqrt(max_total) / 4)
    reach = math.ceil(10 * largest) + 16
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

    # Limits the memory to about 2**22 floats at a time, for any number of draws.
    return jax.lax.map(fill, uniforms, batch_size=max(1, 2**22 // window))


def _hypergeometric(
    uniform: Float[Array, ""],
    good: Int[Array, ""],
    bad: Int[Array, ""],
    draws: Int[Array, ""],
    window: int,
) -> Int[Array, ""]:
    """Draws the number of good units among ``draws`` units, without replacement."""
    mean, deviation, skewness, kurtosis = _moments(good, bad, draws)
    exact = _from_probabilities(uniform, good, bad, draws, window)
    # The quantile of exactly 0 is infinite.
    z = jax.scipy.special.ndtri(jnp.maximum(uniform, 1e-9))
    expanded = (
        z
        + skewness / 6 * (z**2 - 1)
        + kurtosis / 24 * (z**3 - 3 * z)
        - skewness**2 / 36 * (2 * z**3 - 5 * z)
    )
    # The count is the integer nearest to the continuous quantile.
    nearest = jnp.round(mean + deviation * expanded).astype(good.dtype)
    lowest, highest = jnp.maximum(draws - bad, 0), jnp.minimum(draws, good)
    return jnp.where(
        deviation > _EXACT_UP_TO, jnp.clip(nearest, lowest, highest), exact
    )


def _moments(good: Array, bad: Array, draws: Array) -> tuple[Array, ...]:
    """Computes mean, standard deviation, skewness and excess kurtosis."""
    total = jnp.maximum(good + bad, 4).astype(float)
    p, f = good / total, draws / total
    mean = total * p * f
    variance = jnp.maximum(mean * (1 - p) * (1 - f) * total / (total - 1), 1e-12)
    deviation = jnp.sqrt(variance)
    skewness = (1 - 2 * p) * (1 - 2 * f) / deviation * total / (total - 2)
    spread, chosen = p * (1 - p), f * (1 - f)
    # Accurate to the leading order in 1 / n.
    kurtosis = (1 - 6 * spread - 6 * chosen + 30 * spread * chosen) / variance
    return mean, deviation, skewness, kurtosis


def _from_probabilities(
    uniform: Float[Array, ""],
    good: Int[Array, ""],
    bad: Int[Array, ""],
    draws: Int[Array, ""],
    window: int,
) -> Int[Array, ""]:
    """Draws the number by inverting its cumulative probabilities near the mean."""
    lowest, highest = jnp.maximum(draws - bad, 0), jnp.minimum(draws, good)
    population = jnp.maximum(good + bad, 1).astype(float)
    mean = jnp.floor(draws * (good / population)).astype(good.dtype)
    start = jnp.maximum(lowest, mean - window // 2)
    value = start + jnp.arange(window, dtype=good.dtype)
    # Ratios of neighbouring probabilities avoid factorials, whose logarithms are too
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
    # Rounding can raise a uniform just below one to the total mass.
    index = jnp.minimum(jnp.sum(below), jnp.sum(cumulative < cumulative[-1]))
    return start + index.astype(good.dtype)
