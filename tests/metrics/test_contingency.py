import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fairjax.metrics.contingency import _hypergeometric, _moments, random_tables


@pytest.mark.parametrize(
    ("rows", "columns", "draws"),
    [
        ([5, 7], [4, 8], 20_000),
        pytest.param([3000, 6000], [500, 8500], 5000, marks=pytest.mark.slow),
        pytest.param([30, 8970], [4000, 5000], 5000, marks=pytest.mark.slow),
        pytest.param([1, 9], [9, 1], 20_000, marks=pytest.mark.slow),
    ],
)
def test_two_by_two_is_hypergeometric(rows, columns, draws):
    total = sum(rows)
    table = random_tables(
        jax.random.key(0),
        jnp.array(rows),
        jnp.array(columns),
        num_draws=draws,
        max_total=total,
    )
    cell = np.asarray(table)[:, 0, 0]
    exact = stats.hypergeom(total, columns[0], rows[0])
    grid = np.unique(cell)
    distance = np.abs((cell[:, None] <= grid).mean(0) - exact.cdf(grid)).max()
    # The 99.9 % point of Kolmogorov's statistic (conservative for a discrete law).
    assert distance < 1.95 / np.sqrt(draws)


@pytest.mark.parametrize(
    ("good", "bad", "draws"), [(1000, 4000, 2000), (4000, 1000, 500), (900, 900, 100)]
)
def test_moments_are_those_of_scipy(good, bad, draws):
    found = _moments(*(jnp.asarray(float(n)) for n in (good, bad, draws)))
    exact = stats.hypergeom(good + bad, good, draws)
    mean, variance, skewness, kurtosis = exact.stats("mvsk")
    expected = mean, np.sqrt(variance), skewness
    np.testing.assert_allclose(found[:3], expected, rtol=1e-4, atol=1e-6)
    # To the leading order.
    np.testing.assert_allclose(found[3], kurtosis, atol=3 / (good + bad))


@pytest.mark.slow
def test_larger_table_has_multivariate_hypergeometric_moments():
    rows, columns = np.array([10, 20, 30]), np.array([15, 5, 25, 15])
    tables = np.asarray(
        random_tables(
            jax.random.key(1),
            jnp.array(rows),
            jnp.array(columns),
            num_draws=20_000,
            max_total=60,
        ),
        np.float64,
    )
    shares = columns / 60
    np.testing.assert_allclose(tables.mean(0), np.outer(rows, columns) / 60, rtol=0.02)
    for row, total in enumerate(rows):
        expected = (
            total * (60 - total) / 59 * (np.diag(shares) - np.outer(shares, shares))
        )
        np.testing.assert_allclose(
            np.cov(tables[:, row].T), expected, atol=0.05 * expected.max()
        )


@pytest.mark.slow
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.randoms())
def test_margins_hold(groups, random):
    other = [random.randint(0, 2) for _ in groups]
    rows, columns = np.bincount(groups, minlength=4), np.bincount(other, minlength=3)
    tables = random_tables(
        jax.random.key(random.randint(0, 10**6)),
        jnp.array(rows),
        jnp.array(columns),
        num_draws=8,
        max_total=40,
    )
    assert (tables >= 0).all()
    np.testing.assert_array_equal(tables.sum(2), np.tile(rows, (8, 1)))
    np.testing.assert_array_equal(tables.sum(1), np.tile(columns, (8, 1)))


quantiles = jax.jit(
    jax.vmap(_hypergeometric, (0, None, None, None, None)), static_argnums=4
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("good", "bad", "draws"),
    [(3000, 90_000, 45_000), (5 * 10**6, 5 * 10**6, 10**6), (2000, 10**5, 60_000)],
)
def test_large_cells_come_from_the_right_quantiles(good, bad, draws):
    """Beyond 20 standard deviations of a cell its quantiles are expanded."""
    uniform = (np.arange(500) + 0.5) / 500
    sizes = [jnp.asarray(size) for size in (good, bad, draws)]
    found = quantiles(jnp.asarray(uniform, jnp.float32), *sizes, 433)
    exact = stats.hypergeom(good + bad, good, draws)
    error = np.abs(exact.cdf(found) - uniform) - exact.pmf(found)
    assert error.max() < 1e-4
