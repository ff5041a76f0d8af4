"""Random contingency tables with fixed margins, for exact permutation tests.

Shuffling a column of ``n`` rows and counting again costs a sort of ``n`` rows a draw,
but the table that comes out has a known distribution, the multivariate hypergeometric,
and it can be drawn directly at a cost that does not grow with ``n``.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

# Standard deviations of a cell up to which its probabilities are summed.
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
    """Tables of two columns shuffled against each other, given their level counts.

    The cells are drawn one after another from their conditional hypergeometric
    distributions, by inversion: of the probabilities themselves, in float32 right to
    about 1e-6, where a cell's standard deviation is at most 20; of the Cornish-Fisher
    expansion beyond, whose probabilities are right to about 1e-4.

    Args:
      key: A random key.
      row_totals: ``[rows]``, the number of units at each level of one column.
      column_totals: ``[columns]``, the same of the other; of the same sum.
      num_draws: How many tables.
      max_total: At least the sum of the totals; static.

    Returns:
      Independent tables, each with the margins given.

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
    # Ten standard deviations to either side; the largest there can be is sqrt(n) / 4.
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
    mean, deviation, skewness, kurtosis = _moments(good, bad, draws)
    exact = _from_probabilities(uniform, good, bad, draws, window)
    # A uniform of exactly 0 has no quantile.
    z = jax.scipy.special.ndtri(jnp.maximum(uniform, 1e-9))
    expanded = (
        z
        + skewness / 6 * (z**2 - 1)
        + kurtosis / 24 * (z**3 - 3 * z)
        - skewness**2 / 36 * (2 * z**3 - 5 * z)
    )
    # The continuous value within half a unit of which the count lies.
    nearest = jnp.round(mean + deviation * expanded).astype(good.dtype)
    lowest, highest = jnp.maximum(draws - bad, 0), jnp.minimum(draws, good)
    return jnp.where(
        deviation > _EXACT_UP_TO, jnp.clip(nearest, lowest, highest), exact
    )


def _moments(good: Array, bad: Array, draws: Array) -> tuple[Array, ...]:
    """Mean, standard deviation, skewness and excess kurtosis."""
    total = jnp.maximum(good + bad, 4).astype(float)
    p, f = good / total, draws / total
    mean = total * p * f
    variance = jnp.maximum(mean * (1 - p) * (1 - f) * total / (total - 1), 1e-12)
    deviation = jnp.sqrt(variance)
    skewness = (1 - 2 * p) * (1 - 2 * f) / deviation * total / (total - 2)
    spread, chosen = p * (1 - p), f * (1 - f)
    # To the leading order in 1 / n; exact where nothing is left out.
    kurtosis = (1 - 6 * spread - 6 * chosen + 30 * spread * chosen) / variance
    return mean, deviation, skewness, kurtosis


def _from_probabilities(
    uniform: Float[Array, ""],
    good: Int[Array, ""],
    bad: Int[Array, ""],
    draws: Int[Array, ""],
    window: int,
) -> Int[Array, ""]:
    """The number by inverting the sum of its probabilities, near its mean."""
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
