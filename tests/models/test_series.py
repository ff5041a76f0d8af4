"""The encoder of irregular series: NumPy's values, and what makes no difference."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fairjax.models import SeriesEncoder
from tests.models import numpy_transformer as oracle

B, T, VARIABLES, WIDTH, HEADS = 2, 4, 3, 8, 2
PADDED = T + 3


def make(**options):
    sizes = {"num_frequencies": 3, "max_length": PADDED} | options
    return oracle.drawn(
        lambda: SeriesEncoder(VARIABLES, WIDTH, 2, HEADS, **sizes, rngs=nnx.Rngs(0))
    )


APPLY, PARAMS = make()
RUN = jax.jit(APPLY)
DIFFERENTIATE = jax.jit(
    jax.grad(lambda p, times, v, x, m: jnp.sum(APPLY(p, times, v, x, m) ** 2), (0, 3))
)


def series(seed=0, length=T):
    rng = np.random.default_rng(seed)
    times = rng.uniform(0, 72, (B, length))
    return (
        jnp.asarray(times, jnp.float32),
        jnp.asarray(rng.integers(0, VARIABLES, (B, length)), jnp.int32),
        jnp.asarray(rng.normal(size=(B, length)), jnp.float32),
        jnp.asarray(rng.random((B, length)) < 0.7).at[:, 0].set(True),
    )


def test_values_are_those_of_numpy():
    arguments, params = series(), oracle.double(PARAMS)
    found = RUN(PARAMS, *arguments)
    # Periods of 1, 32 and 1,024 hours.
    frequencies = 2 * np.pi / np.array([1, 32, 1024])
    for row, *example in zip(found, *map(np.asarray, arguments), strict=True):
        times, kinds, values = (part[example[3]] for part in example[:3])
        angles = times[:, None] * frequencies
        waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
        tokens = params["variables"][kinds]
        tokens = tokens + values[:, None] * params["directions"][kinds]
        tokens = tokens + oracle.linear(params["time"], waves)
        expected = oracle.summarize(params, tokens, HEADS)
        np.testing.assert_allclose(row, expected, atol=1e-4)


@pytest.mark.slow
@hypothesis.given(
    st.integers(0, 10**6),
    st.permutations(range(PADDED)),
    st.sampled_from([0.0, 5.0, np.nan, np.inf]),
)
def test_order_and_padding_make_no_difference(seed, order, garbage):
    times, kinds, values, mask = series(seed)
    padding = ((0, 0), (0, PADDED - T))
    padded = (
        jnp.pad(times, padding, constant_values=garbage),
        jnp.pad(kinds, padding, constant_values=-1),
        jnp.pad(values, padding, constant_values=garbage),
        jnp.pad(mask, padding),
    )
    shuffled = [part[:, jnp.asarray(order)] for part in padded]
    np.testing.assert_allclose(
        RUN(PARAMS, *shuffled), RUN(PARAMS, times, kinds, values, mask), atol=2e-5
    )


def test_what_stands_at_an_empty_place_has_no_gradient():
    times, kinds, values, mask = series()
    spoiled = jnp.where(mask, values, jnp.nan)
    lost = jnp.where(mask, times, jnp.nan)
    found = DIFFERENTIATE(PARAMS, lost, kinds, spoiled, mask)
    expected = DIFFERENTIATE(PARAMS, times, kinds, values, mask)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    np.testing.assert_array_equal(found[1][~mask], 0)


def test_an_empty_series_has_a_finite_summary_of_its_own():
    times, kinds, values, mask = series()
    empty = mask.at[0].set(False)
    found = RUN(PARAMS, times, kinds, values, empty)
    bare = oracle.double(PARAMS)
    expected = oracle.summarize(bare, np.zeros((0, WIDTH)), HEADS)
    np.testing.assert_allclose(found[0], expected, atol=2e-5)
    gradients = DIFFERENTIATE(PARAMS, times, kinds, values, empty)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    none = RUN(PARAMS, *(part[:, :0] for part in series()))
    np.testing.assert_allclose(none[0], expected, atol=2e-5)


def test_an_unknown_variable_is_not_taken_for_another():
    times, kinds, values, mask = series()
    for wrong in (-1, VARIABLES):
        found = RUN(PARAMS, times, kinds.at[0, 0].set(wrong), values, mask)
        assert np.isnan(found[0]).all()
        assert np.isfinite(found[1]).all()


@pytest.mark.slow
def test_half_precision():
    times, kinds, values, mask = series()
    found = RUN(PARAMS, times, kinds, values.astype(jnp.bfloat16), mask)
    np.testing.assert_allclose(
        found, RUN(PARAMS, times, kinds, values, mask), atol=0.05
    )


@pytest.mark.parametrize("kind", [jnp.bfloat16, jnp.float16])
def test_times_of_half_precision_would_shift_measurements(kind):
    times, kinds, values, mask = series()
    with pytest.raises(ValueError, match="times must have 32 bits or more; got"):
        RUN(PARAMS, times.astype(kind), kinds, values, mask)


@pytest.mark.slow
def test_whole_numbers_are_read_as_floats(untyped):
    times, kinds, values, mask = series()
    whole = jnp.round(10 * values).astype(jnp.int32)
    found = RUN(PARAMS, times, kinds, whole, mask)
    expected = RUN(PARAMS, times, kinds, whole.astype(jnp.float32), mask)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_too_long():
    with pytest.raises(ValueError, match=r"max_length=7; got length 8.*Trunc.*larger"):
        jax.eval_shape(APPLY, PARAMS, *series(length=PADDED + 1))


@pytest.mark.parametrize("part", range(4))
def test_arrays_of_other_measurements(untyped, part):
    """One place, which would be spread over all, and one place less; of one name."""
    for length in (1, T - 1):
        arguments = list(series())
        arguments[part] = arguments[part][:, :length]
        message = r"times, variables, values and mask must have one shape, .*\(2, %d\)"
        with pytest.raises(ValueError, match=message % length):
            APPLY(PARAMS, *arguments)
    flat = [array[0] for array in series()]
    with pytest.raises(ValueError, match=r"shape, \[examples, .*; got \(4,\), \(4,\)"):
        APPLY(PARAMS, *flat)


@pytest.mark.parametrize("kind", [float, bool])
def test_variables_that_are_not_integers(untyped, kind):
    times, kinds, values, mask = series()
    with pytest.raises(ValueError, match="variables must be integers, .*; got (fl|bo)"):
        APPLY(PARAMS, times, kinds.astype(kind), values, mask)


@pytest.mark.parametrize(
    "periods", [(0.0, 1.0), (2.0, 1.0), (1.0, np.inf), (np.nan, 1.0)]
)
def test_wrong_periods(periods):
    with pytest.raises(ValueError, match="must be finite, above 0 and ascending; got"):
        make(shortest_period=periods[0], longest_period=periods[1])


@pytest.mark.slow
def test_one_frequency_is_the_shortest_period():
    apply, params = make(num_frequencies=1, shortest_period=24.0, longest_period=24.0)
    times, *rest = series()
    run = jax.jit(apply)
    np.testing.assert_allclose(
        run(params, times + 24, *rest), run(params, times, *rest), atol=1e-4
    )
