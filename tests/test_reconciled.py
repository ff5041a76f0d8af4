"""Updates from factors of the layers, against stored gradients in float64."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import fairjax
from experiments.bench import engine, problems
from fairjax import losses, reconciled, steps, training
from fairjax.jacobian._planning import fuse

B = 16
RNG = np.random.default_rng(0)
CELLS = fairjax.partition(
    {"race": np.repeat(list("abcd"), 4), "died": np.tile([0, 0, 1, 1], 4)}
)
PEOPLE = {"race": RNG.choice(list("abcd"), B), "died": RNG.integers(0, 2, B)}
# All examples, disjoint groups, and overlapping cells of another statistic.
FUNCTIONS = {
    "task": losses.task(CELLS),
    **losses.group_risks(CELLS, "race"),
    "odds": losses.equalized_odds(CELLS, "race", label="died"),
}
K = len(FUNCTIONS)


def draw(*shape):
    return RNG.normal(size=shape) / np.sqrt(shape[0])


def normalised(x, axes):
    x = x - x.mean(axes, keepdims=True)
    return x / jnp.sqrt((x**2).mean(axes, keepdims=True) + 1e-5)


def dense(p, x):
    return (jnp.tanh(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"])[:, 0]


def convolution(p, x):
    numbers = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(
        x, p["k"], (1, 1), "SAME", dimension_numbers=numbers
    )
    groups = (x + p["b"]).reshape(len(x), 4, 4, 2, 2)
    x = normalised(groups, (1, 2, 4)).reshape(len(x), 4, 4, 4) * p["s"] + p["t"]
    return jax.nn.relu(x).mean((1, 2)) @ p["w"]


def attention(p, x):
    x = x @ p["e"] + p["place"]
    h = normalised(x, (-1,)) * p["s"] + p["t"]
    q, k, v = (jnp.einsum("btd,dhk->bthk", h, p[name]) for name in "qkv")
    heads = jax.nn.softmax(jnp.einsum("bthk,bshk->bhts", q, k))
    x = x + jnp.einsum("bhts,bshk,hkd->btd", heads, v, p["o"])
    return x.mean(1) @ p["w"]


def embedding(p, x):
    return jnp.tanh(p["table"][x].mean(1) @ p["w"]) @ p["u"]


def tied(p, x):
    return jnp.tanh(jnp.tanh(x @ p["w"]) @ p["w"].T) @ p["u"]


def weight_norm(p, x):
    return jnp.tanh(x @ (p["v"] / jnp.linalg.norm(p["v"], axis=0) * p["g"])) @ p["u"]


def remat(p, x):
    return jax.checkpoint(lambda w, x: jnp.tanh(x @ w))(p["w"], x) @ p["u"]


def layers(p, x):
    def layer(h, p):
        return jnp.tanh(h @ p["w"] + p["b"]), h.mean()

    # The last layer is nearest to the examples.
    h, _ = jax.lax.scan(jax.checkpoint(layer), x, p | {"u": None}, reverse=True)
    return h @ p["u"]


def two_outputs(p, x):
    return jnp.tanh(x @ p["w"]) @ p["u"]


# Parameters, inputs, and the ways to the blocks' Gram matrices that a plan must have.
MODELS = {
    "dense": (
        dense,
        {"w1": draw(5, 7), "b1": draw(7), "w2": draw(7, 1), "b2": draw(1)},
        draw(B, 5),
        {"ghost", "rows"},
    ),
    "convolution": (
        convolution,
        {"k": draw(3, 3, 3, 4), **{name: draw(4) for name in "bstw"}},
        draw(B, 4, 4, 3),
        {"segments", "rows"},
    ),
    "attention": (
        attention,
        {
            "e": draw(6, 8),
            "place": draw(5, 8),
            "s": draw(8),
            "t": draw(8),
            **{name: draw(8, 2, 4) for name in "qkv"},
            "o": draw(2, 4, 8),
            "w": draw(8),
        },
        draw(B, 5, 6),
        {"ghost", "segments", "rows"},
    ),
    "embedding": (
        embedding,
        {"table": draw(11, 6), "w": draw(6, 5), "u": draw(5)},
        RNG.integers(0, 11, (B, 4)),
        {"segments", "ghost"},
    ),
    "tied": (
        tied,
        {"w": draw(5, 7), "u": draw(5)},
        draw(B, 5),
        {"segments", "ghost"},
    ),
    "weight norm": (
        weight_norm,
        {"v": draw(5, 7), "g": draw(7), "u": draw(7)},
        draw(B, 5),
        {"segments", "ghost"},
    ),
    "remat": (remat, {"w": draw(5, 7), "u": draw(7)}, draw(B, 5), {"ghost"}),
    "two outputs": (
        two_outputs,
        {"w": draw(5, 7), "u": draw(7, 2)},
        draw(B, 5),
        {"segments"},
    ),
    "layers": (
        layers,
        {"w": draw(2, 5, 5), "b": draw(2, 5), "u": draw(5)},
        draw(B, 5),
        {"ghost", "rows"},
    ),
}


def objectives_of(net, functions=FUNCTIONS, **options):
    def statistics(params, batch):
        z, y = net(params, batch["x"]), batch["y"]
        first, last = (z, z) if z.ndim == 1 else (z[:, 0], z[:, 1])
        return {
            "loss": jax.nn.softplus(first) - y * first,
            "score": jax.nn.sigmoid(last),
        }

    return fairjax.cell_objectives(statistics, CELLS, functions, **options)


def case(name, dtype: Any = np.float32):
    net, params, x, _ = MODELS[name]
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
    x = jnp.asarray(x, dtype if x.dtype == np.float64 else None)
    batch = {"x": x, "y": jnp.asarray(PEOPLE["died"], dtype)}
    return objectives_of(net), params, batch | {"cells": CELLS.encode(PEOPLE)}


def both(objectives, transform, params, batch, *rest, stored="jacrev", **options):
    """The fused result, and that of stored gradients."""
    state = transform.init(params)
    return [
        jax.jit(
            fairjax.reconciled_value_and_grad(
                objectives, transform, strategy=strategy, **options
            )
        )(params, state, batch, *rest)
        for strategy in ("fused", stored)
    ]


def close(found, expected, rtol):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(
        jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_exact_for_each_kind_of_layer(name):
    with jax.enable_x64():
        objectives, params, batch = case(name, np.float64)
        transform = fairjax.pcgrad(num_objectives=K)
        fused, stored = both(objectives, transform, params, batch)
        # The state's diagnostics are of float32: norms, cosines and weights.
        close(fused[:2], stored[:2], 1e-12)
        close(fused[2], stored[2], 1e-6)
        ways = {block.way for block in fuse(objectives, params, (batch,))[0].blocks}
        assert ways == MODELS[name][3]


def test_the_plan_names_the_fused_path():
    objectives, params, batch = case("dense")
    transform = fairjax.upgrad(num_objectives=K)
    plan = reconciled.explain(objectives, transform, strategy="fused")(params, batch)
    assert plan.strategy == "fused"
    ways = {block.way for block in fuse(objectives, params, (batch,))[0].blocks}
    assert ways == MODELS["dense"][3]


def auc(z, batch):
    """A smooth area under the ROC curve, which compares examples."""
    case = batch["y"] > 0
    pairs = case[:, None] & ~case
    return jnp.mean(jax.nn.sigmoid(z[None, ..., 0] - z[..., 0, None]), where=pairs)


def calibration(z, batch):
    return (jax.nn.sigmoid(z).mean(0) - batch["y"].mean()) @ jnp.ones(z.shape[1])


def spread(z, batch):
    return jnp.var(z) + batch["y"].sum()


# Outputs of an example, and the passes: one for each output or objective.
@pytest.mark.parametrize(
    ("outputs", "name"),
    [
        (1, "dense"),
        pytest.param(2, "two outputs", marks=pytest.mark.slow),
        pytest.param(7, "many outputs", marks=pytest.mark.slow),
        pytest.param(1, "convolution", marks=pytest.mark.slow),
        pytest.param(1, "layers", marks=pytest.mark.slow),
    ],
)
def test_objectives_that_compare_examples(outputs, name):
    with jax.enable_x64():
        _, params, batch = case("dense" if outputs == 7 else name, np.float64)
        if outputs == 7:
            params["w2"], params["b2"] = jnp.asarray(draw(7, 7)), jnp.asarray(draw(7))

        def outputs_fn(params, batch):
            if outputs == 7:
                x = jnp.tanh(batch["x"] @ params["w1"] + params["b1"])
                return x @ params["w2"] + params["b2"]
            return MODELS[name][0](params, batch["x"]).reshape(B, -1)

        functions = {"auc": auc, "calibration": calibration, "spread": spread}
        objectives = fairjax.output_objectives(outputs_fn, functions)
        transform = fairjax.pcgrad(num_objectives=3)
        fused, stored = both(objectives, transform, params, batch)
        close(fused[:2], stored[:2], 1e-12)
        close(fused[2], stored[2], 1e-6)
        plan = fuse(objectives, params, (batch,))[0]
        assert plan.waist.outputs == outputs


@pytest.mark.slow
def test_nan_of_an_example_stays_with_its_objectives():
    objectives, params, batch = case("dense")
    batch["x"] = jnp.asarray(batch["x"]).at[3, 0].set(jnp.nan)
    fused, stored = both(
        objectives, fairjax.mgda(num_objectives=K), params, batch, stored="cells"
    )
    assert 0 < fused[2].nonfinite.sum() < K
    close(fused, stored, 1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fused[1]))


@pytest.mark.slow
def test_weights_masks_and_running_means():
    objectives, params, batch = case("dense")
    objectives = objectives_of(dense, decay=0.9)
    batch["weights"] = jnp.asarray(RNG.integers(0, 3, B))
    batch["mask"] = jnp.arange(B) != 2
    running = objectives.init_running()
    fused, stored = both(
        objectives,
        fairjax.fairgrad(num_objectives=K),
        params,
        batch,
        running,
        has_aux=True,
    )
    close(fused, stored, 1e-5)


@pytest.mark.slow
def test_a_chain_with_extra_arguments_under_vmap():
    objectives, params, batch = case("dense")
    transform = optax.chain(fairjax.famo(num_objectives=K), optax.adamw(1e-2))
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
    mask = jnp.array([True] * (K - 1) + [False])

    def update(strategy):
        step = fairjax.reconciled_value_and_grad(
            objectives, transform, strategy=strategy
        )
        return jax.jit(
            jax.vmap(
                lambda params: step(params, transform.init(params), batch, mask=mask)
            )
        )(many)

    close(update("fused"), update("pulls"), 1e-4)


@pytest.mark.slow
def test_steps_are_reconciled():
    objectives, params, batch = case("dense")
    chosen = steps.balance_magnitudes(), steps.combine("mean")
    transform = fairjax.reconcile(*chosen, num_objectives=K)
    given = params, transform.init(params), batch
    found, expected = (
        jax.jit(fairjax.reconciled_value_and_grad(objectives, *one)).lower(*given)
        for one in (chosen, [transform])
    )
    assert found.as_text() == expected.as_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (fairjax.graddrop(num_objectives=K), "more than the Gram matrix"),
        (
            optax.chain(
                fairjax.per_objective(optax.clip_by_global_norm(1.0), num_objectives=K),
                fairjax.mgda(num_objectives=K),
            ),
            "more than the Gram matrix",
        ),
    ],
    ids=["graddrop", "clipped rows"],
)
def test_rows_are_stored_for_what_reads_them(transform, reason):
    objectives, _, batch = case("dense")
    # So large that storing gradients would cost more.
    shapes = {"w1": (5, 512), "b1": (512,), "w2": (512, 1), "b2": (1,)}
    params = {
        name: jnp.asarray(draw(*shape), jnp.float32) for name, shape in shapes.items()
    }
    state = transform.init(params)
    step = functools.partial(fairjax.reconciled_value_and_grad, objectives, transform)
    plan = reconciled.explain(objectives, transform)(params, batch)
    assert reason in plan.reason
    found, expected = (
        jax.jit(one).lower(params, state, batch).as_text()
        for one in (step(), step(strategy=plan.strategy))
    )
    assert found == expected
    with pytest.raises(ValueError, match="through their Gram matrix alone"):
        jax.eval_shape(step(strategy="fused"), params, state, batch)


def loop(p, x):
    return jax.lax.fori_loop(0, 2, lambda _, h: jnp.tanh(h @ p["w"]), x).sum(1)


def gated(p, x):
    hidden = x @ p["w"]
    return jnp.tanh(hidden) @ p["w"][:, 0] * (hidden[:, 0] > 0)


def batch_norm(p, x):
    return normalised(x @ p["w"], (0,)).sum(1)


@pytest.mark.parametrize(
    ("objectives", "params", "reason"),
    [
        (objectives_of(loop), {"w": draw(5, 5)}, "parameters enter a loop"),
        (objectives_of(gated), {"w": draw(5, 5)}, "without a derivative"),
        (objectives_of(batch_norm), {"w": draw(5, 5)}, "combines examples"),
        (
            fairjax.stack_objectives(
                {f"l{i}": lambda p, b: jnp.sum(p["w"]) for i in range(K)}
            ),
            {"w": draw(5)},
            "not functions of examples' outputs",
        ),
        (
            fairjax.cell_objectives(
                lambda p, batch: {
                    "loss": jnp.broadcast_to(p["w"], B),
                    "score": jax.nn.sigmoid(batch["x"][:, 0]),
                },
                CELLS,
                FUNCTIONS,
            ),
            {"w": draw(1)[0]},
            "a statistic is a parameter",
        ),
    ],
    ids=["loop", "gate", "batch norm", "plain", "a parameter alone"],
)
def test_reasons_for_stored_gradients(objectives, params, reason):
    _, _, batch = case("dense")
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    transform = fairjax.mgda(num_objectives=K)
    plan = reconciled.explain(objectives, transform)(params, batch)
    assert plan.strategy in ("pulls", "cells", "jacrev")
    assert reason in plan.reason
    with pytest.raises(ValueError, match=f"'fused' is not possible: .*{reason}"):
        reconciled.explain(objectives, transform, strategy="fused")(params, batch)


@pytest.mark.slow
def test_stored_gradients_on_a_mesh():
    objectives, params, batch = case("dense")
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    batch = jax.device_put(batch, NamedSharding(mesh, P("data")))
    transform = fairjax.mgda(num_objectives=K)
    plan = reconciled.explain(objectives, transform)(params, batch)
    assert (plan.strategy, "over a mesh" in plan.reason) == ("pulls", True)


def test_errors_are_those_of_stored_gradients():
    objectives, params, batch = case("dense")
    transform = fairjax.mgda(num_objectives=K)

    def trace(transform, **extra):
        step = fairjax.reconciled_value_and_grad(objectives, transform)
        state = jax.eval_shape(transform.init, params)
        return jax.eval_shape(step, params, state, batch, **extra)

    with pytest.raises(ValueError, match=r"losses has shape \(2,\)"):
        trace(transform, losses=jnp.ones(2))
    with pytest.raises(ValueError, match="was made for 2 objectives"):
        trace(fairjax.mgda(num_objectives=2))
    with pytest.raises(ValueError, match="must have one optax transformation"):
        fairjax.reconciled_value_and_grad(objectives)
    with pytest.raises(ValueError, match="steps must come with named objectives"):
        fairjax.reconciled_value_and_grad(lambda w: w, steps.combine())
    with pytest.raises(ValueError, match="strategy must be"):
        fairjax.reconciled_value_and_grad(objectives, transform, strategy="fast")


@pytest.mark.parametrize(
    ("groups", "most"),
    [(8, 1.3), pytest.param(32, 1.35, marks=pytest.mark.slow)],
)
def test_the_update_costs_little_more_than_one_gradient(groups, most):
    names = [f"g{i:02}" for i in range(groups)]
    cells = fairjax.partition({"group": names})
    widths = [256, 256, 256, 1]
    params = [
        {"w": jnp.zeros(shape), "b": jnp.zeros(shape[1])}
        for shape in itertools.pairwise(widths)
    ]

    def loss(params, batch):
        x = batch["x"]
        for layer in params:
            x = jnp.tanh(x) @ layer["w"] + layer["b"]
        return (x[:, 0] - batch["y"]) ** 2

    objectives = fairjax.cell_objectives(
        lambda params, batch: {"loss": loss(params, batch)},
        cells,
        losses.group_risks(cells, "group"),
    )
    codes = jnp.asarray(cells.encode({"group": np.resize(names, 64)}))
    batch = {"x": jnp.ones((64, 256)), "y": jnp.ones(64), "cells": codes}
    transform = fairjax.pcgrad(num_objectives=groups)
    step = fairjax.reconciled_value_and_grad(objectives, transform)
    assert reconciled.explain(objectives, transform)(params, batch).strategy == "fused"
    plain = engine.flops(jax.grad(lambda params: loss(params, batch).mean()), params)
    total = engine.flops(
        lambda params: step(params, transform.init(params), batch)[:2], params
    )
    assert total <= most * plain

    # The train step takes this path by itself, in the memory of less than two rows.
    transform = optax.chain(transform, optax.sgd(0.1))
    state = training.init_state(params, transform, key=0)
    train = jax.jit(training.make_train_step(objectives, transform), donate_argnums=0)
    memory = train.lower(state, batch).compile().memory_analysis()
    row = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert memory.temp_size_in_bytes < 2 * row


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (functools.partial(problems.crossing, "outputs", 64, engine.MLP), 1.4),
        *(
            pytest.param(
                functools.partial(make, *args, **options), most, marks=pytest.mark.slow
            )
            for make, args, options, most in (
                (problems.crossing, ("cells", 64, engine.MLP), {}, 1.4),
                (problems.convolutional, (8, 64), {}, 1.2),
                (problems.transformer, (8, 64), {"depth": 2}, 1.2),
            )
        ),
    ],
    ids=["odds of outputs", "odds of cells", "convolutions", "ViT"],
)
def test_a_whole_step_costs_little_more_than_a_plain_step(make, most):
    assert 1 < engine.over_plain(make()) <= most


@pytest.mark.slow
def test_training_by_hand_equals_the_train_step():
    objectives, params, batch = case("dense")
    transform = optax.chain(fairjax.fairgrad(num_objectives=K), optax.sgd(0.1))
    update = fairjax.reconciled_value_and_grad(objectives, transform, strategy="fused")
    step = training.make_train_step(objectives, transform, strategy="jacrev")
    state = training.init_state(params, transform, key=0)
    values, updates, _ = jax.jit(update)(params, state.opt_state, batch)
    expected, info = jax.jit(step)(state, batch)
    close(optax.apply_updates(params, updates), expected.params, 1e-5)
    np.testing.assert_allclose(values, info.values, rtol=1e-6)
