"""The encoder of a table's rows against NumPy, and what missing features can do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fairjax.models import TabularEncoder
from tests.models import numpy_transformer as oracle

B, FEATURES, WIDTH, HEADS = 3, 4, 8, 2
X = jnp.asarray(np.random.default_rng(0).normal(size=(B, FEATURES)), jnp.float32)
MASK = jnp.asarray([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]], bool)
APPLY, PARAMS = oracle.drawn(
    lambda: TabularEncoder(FEATURES, WIDTH, 1, HEADS, rngs=nnx.Rngs(0))
)
RUN = jax.jit(APPLY)
DIFFERENTIATE = jax.jit(jax.grad(lambda p, x, m: jnp.sum(APPLY(p, x, m) ** 2), (0, 1)))


def test_values_are_those_of_numpy():
    params = oracle.double(PARAMS)
    found = RUN(PARAMS, X, MASK)
    for row, x, mask in zip(found, np.asarray(X), np.asarray(MASK), strict=True):
        tokens = np.where(
            mask[:, None],
            x[:, None] * params["weights"] + params["biases"],
            params["missing"],
        )
        np.testing.assert_allclose(
            row, oracle.summarize(params, tokens, HEADS), atol=2e-5
        )


def test_what_stands_at_a_missing_feature_is_not_read():
    spoiled = jnp.where(MASK, X, jnp.nan)
    np.testing.assert_array_equal(RUN(PARAMS, spoiled, MASK), RUN(PARAMS, X, MASK))
    found, expected = (DIFFERENTIATE(PARAMS, x, MASK) for x in (spoiled, X))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    np.testing.assert_array_equal(found[1][~MASK], 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_missing_is_no_value_of_the_feature():
    missing = RUN(PARAMS, X, MASK.at[0, 0].set(False))[0]
    for value in (-1.0, 0.0, 1.0):
        present = RUN(PARAMS, X.at[0, 0].set(value), MASK)[0]
        assert np.abs(missing - present).max() > 0.01


def test_no_mask_is_a_mask_of_all():
    everything = jnp.ones((B, FEATURES), bool)
    np.testing.assert_allclose(RUN(PARAMS, X), RUN(PARAMS, X, everything), atol=1e-6)


@pytest.mark.slow
def test_half_precision():
    found = RUN(PARAMS, X.astype(jnp.bfloat16), MASK)
    np.testing.assert_allclose(found, RUN(PARAMS, X, MASK), atol=0.05)


def test_wrong_sizes():
    message = r"features must have shape \[examples, 4\], .*; got shape \(3, 3\)"
    with pytest.raises(ValueError, match=message):
        APPLY(PARAMS, X[:, :3])
    with pytest.raises(ValueError, match="num_inputs must be at least 1"):
        TabularEncoder(0, WIDTH, 1, HEADS, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(), (FEATURES,), (2, B, FEATURES)])
def test_features_of_other_axes(shape, untyped):
    with pytest.raises(ValueError, match=r"\[examples, 4\], .*; got shape \(.*\)"):
        APPLY(PARAMS, jnp.zeros(shape))


# As many examples as features, so that a mask of either could be spread over them.
@pytest.mark.parametrize("shape", [(), (3,), (1, 3), (3, 1), (3, 2), (3, 3, 1)])
def test_masks_of_other_features(shape, untyped):
    encoder = TabularEncoder(3, WIDTH, 1, HEADS, rngs=nnx.Rngs(0))
    mask = jnp.ones(shape, bool)
    message = r"mask must have shape \(3, 3\), .* of the features; got shape \(.*\)"
    with pytest.raises(ValueError, match=message):
        encoder(jnp.ones((3, 3)), mask)
