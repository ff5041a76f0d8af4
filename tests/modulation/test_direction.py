"""The direction term and the gradients that it compares."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairjax import modulation
from tests.modulation import transcription

direction_loss = jax.jit(modulation.direction_loss)
last_layer_gradient = jax.jit(modulation.last_layer_gradient)


@pytest.mark.parametrize("classes", [None, pytest.param(2, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize("masked", [False, True])
def test_last_layer_gradient_is_that_of_the_mean_cross_entropy(classes, masked):
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(9, 3)), jnp.float32)
    shape = (3,) if classes is None else (3, classes)
    weights = jnp.asarray(rng.normal(size=shape), jnp.float32)
    labels = jnp.asarray(rng.integers(0, classes or 2, 9))
    mask = jnp.asarray(rng.random(9) < 0.6) if masked else None
    counted = jnp.ones(9) if mask is None else mask

    def loss(weights):
        logits = inputs @ weights
        if classes is None:
            each = optax.sigmoid_binary_cross_entropy(logits, labels)
        else:
            each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.sum(each * counted) / jnp.sum(counted)

    given_inputs, given_labels = inputs, labels
    if masked:
        given_inputs = jnp.where(mask[:, None], inputs, jnp.nan)
        given_labels = jnp.where(mask, labels, -1)
    found = last_layer_gradient(
        given_inputs, inputs @ weights, given_labels, weights=mask
    )
    np.testing.assert_allclose(
        found, jax.jit(jax.grad(loss))(weights), rtol=2e-5, atol=1e-6
    )


@pytest.mark.slow
def test_last_layer_gradient_of_a_weighted_loss_and_its_own_derivative():
    rng = np.random.default_rng(1)
    inputs = jnp.asarray(rng.normal(size=(7, 3)), jnp.float32)
    head = jnp.asarray(rng.normal(size=3), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 2, 7))
    mass = jnp.asarray(rng.uniform(0.2, 3, 7), jnp.float32).at[2].set(0)

    def loss(head):
        each = optax.sigmoid_binary_cross_entropy(inputs @ head, labels)
        return mass @ each / jnp.sum(mass)

    def found(inputs, head):
        return last_layer_gradient(inputs, inputs @ head, labels, weights=mass)

    wanted = jax.jit(jax.grad(loss))(head)
    np.testing.assert_allclose(found(inputs, head), wanted, rtol=2e-5, atol=1e-6)
    # What does not count may be NaN, and so may nothing that is derived from it.
    holes = inputs.at[2].set(jnp.nan)
    slope = jax.jit(jax.grad(lambda x: jnp.sum(found(x, head) ** 2)))
    np.testing.assert_allclose(found(holes, head), wanted, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(slope(holes), slope(inputs), rtol=1e-5, atol=1e-7)
    assert not slope(holes)[2].any()


def test_last_layer_gradient_by_hand_and_without_rows():
    inputs, labels = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([1, 0])
    logits = jnp.log(jnp.array([3.0, 1 / 3]))  # probabilities 3/4 and 1/4
    found = last_layer_gradient(inputs, logits, labels)
    np.testing.assert_allclose(found, [0.25, 0.25], rtol=1e-6)
    nothing = last_layer_gradient(inputs, logits, labels, weights=jnp.zeros(2, bool))
    np.testing.assert_array_equal(nothing, [0, 0])


@pytest.mark.parametrize(
    "weights", [None, pytest.param([1.0, 2.0, 3.0, 1.0], marks=pytest.mark.slow)]
)
def test_rows_without_a_label_are_padding_of_a_binary_gradient(weights):
    """Labels 1, 0 and two of padding: as if there were two rows, whatever it holds."""
    inputs = np.float32([[1, 2], [3, 4], [5, np.nan], [7, 8]])
    logits = np.float32([0.3, -0.2, np.inf, 2])
    labels = np.array([1, 0, -1, 2])
    mass = None if weights is None else np.float32(weights)
    short = None if mass is None else mass[:2]
    found = last_layer_gradient(inputs, logits, labels, weights=mass)
    wanted = last_layer_gradient(inputs[:2], logits[:2], labels[:2], weights=short)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert found.all()

    def squared(inputs):
        return jnp.sum(last_layer_gradient(inputs, logits, labels, weights=mass) ** 2)

    slope = jax.jit(jax.grad(squared))(inputs)
    assert slope[:2].all()
    np.testing.assert_array_equal(slope[2:], 0)
    nothing = last_layer_gradient(inputs, logits, jnp.full(4, -1), weights=mass)
    np.testing.assert_array_equal(nothing, [0, 0])


def test_a_multi_class_gradient_counts_every_row():
    inputs, logits = jnp.eye(3), jnp.zeros((3, 3))
    found = last_layer_gradient(inputs, logits, jnp.array([0, 1, 2]))
    np.testing.assert_allclose(found, (1 / 3 - np.eye(3)) / 3, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("classes", [None, 2])
def test_labels_that_are_no_classes_are_refused(classes):
    logits = jnp.zeros(3) if classes is None else jnp.zeros((3, classes))
    strange = jnp.array([1, -1, 1] if classes is None else [1, 2, 1])
    with pytest.raises(ValueError, match=r"1 and -1|from 0 to 1; got .*2"):
        modulation.last_layer_gradient(jnp.ones((3, 2)), logits, strange)
    # A row that does not count may hold anything.
    if classes is not None:
        mass = jnp.array([1, 0, 1])
        found = last_layer_gradient(jnp.ones((3, 2)), logits, strange, weights=mass)
        np.testing.assert_allclose(found, [[0.5, -0.5]] * 2)


def test_direction_loss_by_hand():
    """Cosines 1, 0, −1 and .6 with balances .5, .25, .125 and −.5."""
    fused = jnp.array([2.0, 0.0])
    unimodal = jnp.array([[3.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [3.0, 4.0]])
    balance = jnp.array([0.5, 0.25, 0.125, -0.5])
    found = direction_loss(fused, unimodal, balance)
    wanted = (1.375 - (0.5 - 0.125 - 0.3)) / 4
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    # The layer's shape is of no account.
    found = direction_loss(fused.reshape(2, 1), unimodal.reshape(4, 2, 1), balance)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


vectors = st.integers(0, 10_000).map(
    lambda seed: np.random.default_rng(seed).normal(size=(4, 3)).astype(np.float32)
)


@pytest.mark.slow
@given(
    vectors=vectors,
    balance=st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3),
    scale=st.floats(0.1, 100),
)
def test_direction_loss_is_bounded_and_blind_to_lengths(vectors, balance, scale):
    balance = np.array(balance, np.float32)
    fused, unimodal = vectors[0], vectors[1:]
    shares = jnp.asarray(balance)
    found = float(direction_loss(jnp.asarray(fused), jnp.asarray(unimodal), shares))
    assert -1e-6 <= found <= 2 * balance.sum() / 3 + 1e-6
    wanted = transcription.direction_loss(fused, unimodal, balance)
    assert found == pytest.approx(wanted, abs=1e-5)
    longer = direction_loss(
        jnp.asarray(fused * np.float32(scale)), jnp.asarray(unimodal), shares
    )
    assert float(longer) == pytest.approx(found, abs=1e-5)
    for sign, wanted in ((1, 0.0), (-1, 2 * balance.sum() / 3)):
        aligned = jnp.asarray(np.stack([sign * fused] * 3))
        found = float(direction_loss(jnp.asarray(fused), aligned, shares))
        assert found == pytest.approx(wanted, abs=1e-5)


def test_a_gradient_of_zero_has_no_direction_and_no_nan():
    unimodal, balance = jnp.eye(2), jnp.array([0.5, 0.5])
    differentiate = jax.jit(jax.value_and_grad(direction_loss))
    value, slope = differentiate(jnp.zeros(2), unimodal, balance)
    assert float(value) == 0.5
    assert np.isfinite(slope).all()
    dead = direction_loss(jnp.array([1.0, 0.0]), jnp.zeros((2, 2)), balance)
    assert float(dead) == 0.5


def test_small_gradients_in_16_bits_have_a_direction():
    fused = jnp.array([1e-4, 1e-4], jnp.float16)
    found = direction_loss(fused, 1e-5 * jnp.eye(2, dtype=jnp.float16), jnp.ones(2))
    wanted = direction_loss(jnp.ones(2), jnp.eye(2), jnp.ones(2))
    assert float(found) == pytest.approx(float(wanted), abs=2e-2)


def test_only_the_fused_gradient_is_moved():
    fused, unimodal = jnp.array([1.0, 0.0]), jnp.array([[1.0, 1.0], [0.0, 1.0]])
    differentiate = jax.jit(jax.grad(direction_loss, argnums=(0, 1, 2)))
    slopes = differentiate(fused, unimodal, jnp.array([0.5, 0.5]))
    # Turned towards both: cos' = sin, .7071 and 1, times .5/2.
    np.testing.assert_allclose(slopes[0], [0, -0.25 * (0.5**0.5 + 1)], atol=1e-6)
    np.testing.assert_array_equal(slopes[1], 0)
    np.testing.assert_array_equal(slopes[2], 0)
