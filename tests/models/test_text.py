"""The encoder of texts against NumPy, and what empty places can do: nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fairjax.models import TextEncoder
from tests.models import numpy_transformer as oracle

WORDS, WIDTH, HEADS, LONGEST = 11, 8, 2, 6
APPLY, PARAMS = oracle.drawn(
    lambda: TextEncoder(WORDS, WIDTH, 1, HEADS, max_length=LONGEST, rngs=nnx.Rngs(0))
)
RUN = jax.jit(APPLY)
TEXTS = jnp.asarray([[4, 10, 2, 2], [9, 0, 0, 0], [0, 0, 0, 0]])
MASK = jnp.asarray([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]], bool)


def test_values_are_those_of_numpy():
    params = oracle.double(PARAMS)
    for row, words in zip(
        RUN(PARAMS, TEXTS, MASK), [[4, 10, 2, 2], [9], []], strict=True
    ):
        tokens = params["words"][np.asarray(words, int)]
        tokens = tokens + params["positions"][: len(words)]
        np.testing.assert_allclose(
            row, oracle.summarize(params, tokens, HEADS), atol=2e-5
        )


def test_empty_places_make_no_difference():
    padded = jnp.pad(TEXTS, ((0, 0), (0, 2)), constant_values=-100)
    padded = jnp.where(jnp.pad(MASK, ((0, 0), (0, 2))), padded, -100)
    found = RUN(PARAMS, padded, jnp.pad(MASK, ((0, 0), (0, 2))))
    np.testing.assert_allclose(found, RUN(PARAMS, TEXTS, MASK), atol=2e-6)


def test_order_makes_a_difference():
    found = RUN(PARAMS, TEXTS[:, ::-1])
    assert np.abs(found[0] - RUN(PARAMS, TEXTS)[0]).max() > 0.01
    np.testing.assert_array_equal(found[2], RUN(PARAMS, TEXTS)[2])


def test_an_unknown_word_is_not_taken_for_another():
    found = RUN(PARAMS, TEXTS.at[0, 0].set(WORDS))
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1:]).all()


def test_too_long():
    texts = jnp.zeros((2, LONGEST + 1), jnp.int32)
    with pytest.raises(
        ValueError, match=r"max_length=6; got length 7.*Truncate the texts"
    ):
        jax.eval_shape(APPLY, PARAMS, texts)


@pytest.mark.parametrize("shape", [(), (4,), (3,), (1, 4), (3, 1), (3, 5), (3, 4, 1)])
def test_masks_of_other_words(shape, untyped):
    message = r"mask must have shape \(3, 4\), .* of the tokens; got shape \(.*\)"
    with pytest.raises(ValueError, match=message):
        APPLY(PARAMS, TEXTS, jnp.ones(shape, bool))


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 4)])
def test_tokens_of_other_axes(shape, untyped):
    with pytest.raises(ValueError, match=r"\[examples, words\]; got shape \(.*\)"):
        APPLY(PARAMS, jnp.zeros(shape, int))


@pytest.mark.parametrize(
    ("tokens", "kind"),
    [
        (TEXTS.astype(jnp.float32), "float32"),
        (MASK, "bool"),
        (np.array([["septic", "shock"]]), "<U6"),
        (["septic shock"], "list"),
        ("septic shock", "str"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tokens_that_are_not_integers(tokens, kind, untyped):
    message = f"tokens must be an array of integers, .*; got {kind}. Pass"
    with pytest.raises(ValueError, match=message):
        APPLY(PARAMS, tokens)
