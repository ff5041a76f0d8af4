"""NNX models as pure functions of a pytree, through the Jacobian paths."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import fairjax
from fairjax.models import MLP, MultimodalClassifier, functional, stateful
from tests.models import numpy_transformer as oracle

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
X, Y = jnp.asarray(X), jnp.asarray((X[:, 0] > 0).astype(np.float32))


class Normed(nnx.Module):
    """A model whose examples are coupled: batch normalisation in training mode."""

    def __init__(self, rngs):
        self.inner = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, use_running_average=False, rngs=rngs)
        self.outer = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, inputs):
        return self.outer(jax.nn.relu(self.norm(self.inner(inputs))))


def normed():
    """The model as a function of its parameters, at the first state."""
    apply, params, state = stateful(Normed(nnx.Rngs(0)))
    return lambda params, x: apply(params, state, jax.random.key(0), x)[0], params


def objectives(apply):
    def loss(params, x, y):
        return optax.sigmoid_binary_cross_entropy(apply(params, x)[:, 0], y)

    return fairjax.stack_objectives(
        {
            "all": lambda params, x, y: jnp.mean(loss(params, x, y)),
            "half": lambda params, x, y: jnp.mean(loss(params, x, y)[:4]),
        }
    )


def test_values_by_hand():
    apply, params = oracle.drawn(lambda: MLP(3, (4, 2), 1, rngs=nnx.Rngs(0)))
    hidden = np.asarray(X)
    for layer in params["layers"].values():
        outputs = hidden @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        hidden = np.maximum(outputs, 0)
    found = jax.jit(apply)(params, X)
    np.testing.assert_allclose(found, outputs, rtol=1e-5, atol=1e-6)


def test_a_model_and_its_function_give_the_same():
    model = MLP(3, (), 1, rngs=nnx.Rngs(0))
    apply, params = functional(model)
    np.testing.assert_array_equal(apply(params, X), model(X))


def test_no_hidden_layer_is_linear():
    apply, params = functional(MLP(3, (), 2, rngs=nnx.Rngs(0)))
    assert jax.tree.map(jnp.shape, params) == {
        "layers": {0: {"bias": (2,), "kernel": (3, 2)}}
    }
    run = jax.jit(apply)
    one, two = run(params, X), run(params, 2 * X)
    np.testing.assert_allclose(two, 2 * one, rtol=1e-5)


def test_activation_is_the_one_given():
    build = {"num_inputs": 3, "hidden": (4,), "num_outputs": 1}
    relu = MLP(**build, rngs=nnx.Rngs(0))
    linear = MLP(**build, activation=lambda x: x, rngs=nnx.Rngs(0))
    x = X
    np.testing.assert_allclose(linear(2 * x), 2 * linear(x), rtol=1e-4, atol=1e-5)
    assert not np.allclose(relu(-x), -relu(x))


@pytest.mark.slow
def test_dropout_draws_where_there_are_keys_only():
    model = MLP(3, (64,), 1, dropout=0.5, rngs=nnx.Rngs(0))
    apply, params = functional(model)
    x = X
    first = apply(params, x, rngs=nnx.Rngs(1))
    np.testing.assert_array_equal(first, apply(params, x, rngs=nnx.Rngs(1)))
    assert not np.allclose(first, apply(params, x, rngs=nnx.Rngs(2)))
    plain, same = functional(MLP(3, (64,), 1, rngs=nnx.Rngs(0)))
    np.testing.assert_array_equal(apply(params, x), plain(same, x))
    model.eval()
    apply, params = functional(model)
    found = apply(params, x, rngs=nnx.Rngs(1))
    np.testing.assert_array_equal(found, plain(same, x))


@pytest.mark.slow
def test_dropout_in_a_multimodal_classifier_draws_where_there_are_keys_only():
    def make(dropout):
        rngs = nnx.Rngs(0)
        encoders = {"a": MLP(3, (8,), 8, dropout=dropout, rngs=rngs)}
        sizes = {"width": 8, "depth": 1, "num_heads": 2, "dropout": 0.0}
        return MultimodalClassifier(encoders, {"a": 8}, **sizes, rngs=rngs)

    apply, params = oracle.drawn(lambda: make(0.5))
    plain, _ = oracle.drawn(lambda: make(0.0))

    @jax.jit
    def run(params):
        inputs = {"a": (X,)}
        kinds = apply(params, inputs), plain(params, inputs)
        dropped = apply(params, inputs, rngs=nnx.Rngs(1))
        return [outputs.logits for outputs in (*kinds, dropped)]

    found, same, dropped = run(params)
    np.testing.assert_array_equal(found, same)
    assert not np.allclose(dropped, found)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, (4,), 1), "num_inputs must be at least 1; got 0"),
        ((3, (4, 0), 1), "the width of a hidden layer must be at least 1; got 0"),
        ((3, (4.5,), 1), "the width of a hidden layer must be a static Python int"),
        ((3, (4,), 0), "num_outputs must be at least 1; got 0"),
    ],
)
def test_wrong_sizes(sizes, message, untyped):
    with pytest.raises(ValueError, match=message):
        MLP(*sizes, rngs=nnx.Rngs(0))


def test_wrong_inputs(untyped):
    model = MLP(3, (4,), 1, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"shape \[..., 3\], .* got shape \(8, 2\)"):
        model(X[:, :2])
    with pytest.raises(ValueError, match=r"shape \[..., 3\], .* got shape \(\)"):
        model(X[0, 0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "strategy"), [("mlp", "jacrev"), ("batch norm", "pulls")]
)
def test_jacobian_rows_are_the_gradients(kind, strategy):
    plain = functional(MLP(3, (4,), 1, rngs=nnx.Rngs(0)))
    apply, params = normed() if kind == "batch norm" else plain
    both = objectives(apply)
    differentiate = jax.jit(fairjax.value_and_jacobian(both, strategy=strategy))
    values, jacobian = differentiate(params, X, Y)
    alone = [jax.value_and_grad(lambda p, k=k: both(p, X, Y)[k]) for k in range(2)]
    expected = jax.jit(lambda p: [one(p) for one in alone])(params)
    for k, (value, gradient) in enumerate(expected):
        np.testing.assert_allclose(values[k], value, rtol=1e-5)
        jax.tree.map(
            lambda rows, row, k=k: np.testing.assert_allclose(
                rows[k], row, rtol=1e-4, atol=1e-6
            ),
            jacobian,
            gradient,
        )


@pytest.mark.slow
def test_batch_norm_couples_the_examples():
    apply, params = normed()
    together = apply(params, X)
    np.testing.assert_array_equal(together, apply(params, X))
    assert not np.allclose(together[:4], apply(params, X[:4]))


@pytest.mark.slow
def test_maps_over_parameters():
    x = X
    apply, _ = functional(MLP(3, (4,), 1, rngs=nnx.Rngs(0)))
    members = [functional(MLP(3, (4,), 1, rngs=nnx.Rngs(s)))[1] for s in (0, 1)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    found = jax.jit(jax.vmap(apply, in_axes=(0, None)))(stacked, x)
    for row, params in zip(found, members, strict=True):
        np.testing.assert_allclose(row, apply(params, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dropout", [1.5, -1.0, float("nan")])
def test_a_dropout_that_is_not_a_fraction(dropout):
    with pytest.raises(ValueError, match=r"dropout must be a fraction in \[0, 1\]"):
        MLP(2, (3,), 1, dropout=dropout, rngs=nnx.Rngs(0))
