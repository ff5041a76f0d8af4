"""The transformer against NumPy, and what masked tokens can do: nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fairjax.models import Transformer
from tests.models import numpy_transformer as oracle

B, T, WIDTH, HEADS = 4, 5, 8, 2
RNG = np.random.default_rng(0)
TOKENS = jnp.asarray(RNG.normal(size=(B, T, WIDTH)), jnp.float32)
MASK = jnp.asarray(
    [[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0]], bool
)


def make(depth=2, **options):
    return oracle.drawn(
        lambda: Transformer(WIDTH, depth, HEADS, **options, rngs=nnx.Rngs(0))
    )


APPLY, PARAMS = make()
RUN = jax.jit(APPLY, static_argnames="num_rows")


def module():
    """A transformer in shapes, which is enough to refuse what is wrong."""
    return nnx.eval_shape(lambda: Transformer(WIDTH, 2, HEADS, rngs=nnx.Rngs(0)))


DIFFERENTIATE = jax.jit(
    jax.grad(lambda p, tokens, mask: jnp.sum(jnp.sin(APPLY(p, tokens, mask))), (0, 1))
)


def test_rows_are_those_of_numpy_without_the_masked_tokens():
    found = np.asarray(RUN(PARAMS, TOKENS, MASK))
    for row, tokens, mask in zip(
        found, np.asarray(TOKENS), np.asarray(MASK), strict=True
    ):
        expected = np.zeros((T, WIDTH))
        if mask.any():
            present = tokens[mask].astype(np.float64)
            expected[mask] = oracle.transform(oracle.double(PARAMS), present, HEADS)
        np.testing.assert_allclose(row, expected, atol=2e-5)


def test_no_mask_is_a_mask_of_all():
    everything = jnp.ones((B, T), bool)
    np.testing.assert_allclose(
        RUN(PARAMS, TOKENS), RUN(PARAMS, TOKENS, everything), atol=1e-6
    )


@pytest.mark.parametrize("garbage", [7.0, np.nan, np.inf])
def test_masked_tokens_influence_neither_rows_nor_gradients(garbage):
    spoiled = jnp.where(MASK[..., None], TOKENS, garbage)
    np.testing.assert_array_equal(RUN(PARAMS, spoiled, MASK), RUN(PARAMS, TOKENS, MASK))
    found = DIFFERENTIATE(PARAMS, spoiled, MASK)
    expected = DIFFERENTIATE(PARAMS, TOKENS, MASK)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    np.testing.assert_array_equal(found[1][~MASK], 0)


def test_an_example_without_tokens_is_zero_and_has_no_gradient():
    nothing = jnp.zeros((B, T), bool)
    np.testing.assert_array_equal(RUN(PARAMS, TOKENS, nothing), 0)
    for leaf in jax.tree.leaves(DIFFERENTIATE(PARAMS, TOKENS, nothing)):
        np.testing.assert_array_equal(leaf, 0)


def test_permuted_tokens_give_permuted_rows():
    order = jnp.asarray([3, 0, 4, 1, 2])
    np.testing.assert_allclose(
        RUN(PARAMS, TOKENS[:, order], MASK[:, order]),
        RUN(PARAMS, TOKENS, MASK)[:, order],
        atol=2e-6,
    )


@pytest.mark.parametrize(
    "mask",
    [pytest.param(None, marks=pytest.mark.slow), MASK],
    ids=["all", "masked"],
)
def test_first_rows_alone_are_the_first_rows(mask):
    np.testing.assert_allclose(
        RUN(PARAMS, TOKENS, mask, num_rows=2),
        RUN(PARAMS, TOKENS, mask)[:, :2],
        atol=2e-6,
    )


@pytest.mark.slow
def test_leading_axes_are_examples():
    together = RUN(PARAMS, TOKENS.reshape(2, 2, T, WIDTH), MASK.reshape(2, 2, T))
    apart = RUN(PARAMS, TOKENS, MASK)
    np.testing.assert_allclose(together.reshape(B, T, WIDTH), apart, atol=2e-6)


@pytest.mark.slow
def test_half_precision():
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (PARAMS, TOKENS))
    found = RUN(*half, MASK)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        found.astype(jnp.float32), RUN(PARAMS, TOKENS, MASK), atol=0.15
    )
    assert RUN(PARAMS, half[1], MASK).dtype == jnp.float32


@pytest.mark.slow
def test_dropout_draws_where_there_are_keys_only():
    apply, _ = make(dropout=0.5)
    dropping = jax.jit(
        lambda seed: apply(PARAMS, TOKENS, MASK, nnx.Rngs(jax.random.key(seed)))
    )
    still = jax.jit(apply)(PARAMS, TOKENS, MASK)
    np.testing.assert_allclose(still, RUN(PARAMS, TOKENS, MASK), atol=1e-6)
    np.testing.assert_array_equal(dropping(1), dropping(1))
    assert not np.allclose(dropping(1), dropping(2), atol=0.1)
    assert not np.allclose(dropping(1), still, atol=0.1)


def test_activation_and_hidden_units_are_those_given():
    apply, params = make(depth=1, mlp_ratio=3, activation=jnp.zeros_like)
    assert params["blocks"][0]["inner"]["kernel"].shape == (WIDTH, 3 * WIDTH)
    changed = jax.tree.map(lambda x: x, params)
    changed["blocks"][0]["inner"]["kernel"] += 1.0
    run = jax.jit(apply)
    np.testing.assert_array_equal(run(changed, TOKENS), run(params, TOKENS))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((8, 1, 3), "got num_heads=3, width=8"),
        ((8, 0, 2), "depth must be at least 1"),
        ((8, 1, 0), "num_heads must be at least 1"),
    ],
)
def test_wrong_sizes(sizes, message):
    with pytest.raises(ValueError, match=message):
        Transformer(*sizes, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(), (WIDTH,), (B, T), (B, T, WIDTH + 1)])
def test_tokens_of_other_shapes(shape, untyped):
    tokens = jnp.zeros(shape)
    message = r"tokens must have shape \[..., tokens, 8\], .*; got shape \(.*\)"
    with pytest.raises(ValueError, match=message):
        APPLY(PARAMS, tokens)
    with pytest.raises(ValueError, match=message):
        module().summarize(jnp.zeros(WIDTH), tokens)


# As many examples as tokens, so that a mask of either could be spread over them.
@pytest.mark.parametrize("shape", [(), (T,), (1, T), (T, 1), (T, T - 1), (T, T, 1)])
def test_masks_of_other_tokens(shape, untyped):
    tokens, mask = jnp.zeros((T, T, WIDTH)), jnp.ones(shape, bool)
    message = r"mask must have shape \(5, 5\), .* of the tokens; got shape \(.*\)"
    with pytest.raises(ValueError, match=message):
        APPLY(PARAMS, tokens, mask)
    with pytest.raises(ValueError, match=message):
        module().summarize(jnp.zeros(WIDTH), tokens, mask)


@pytest.mark.parametrize("shape", [(), (1,), (WIDTH + 1,), (B, WIDTH)])
def test_summaries_of_other_shapes(shape, untyped):
    with pytest.raises(ValueError, match=r"summary must have shape \(8,\), .*; got "):
        module().summarize(jnp.zeros(shape), TOKENS)


@pytest.mark.parametrize("rows", [0, -1, 1.5])
def test_rows_that_no_answer_has(rows, untyped):
    with pytest.raises(ValueError, match="num_rows must be"):
        APPLY(PARAMS, TOKENS, num_rows=rows)
