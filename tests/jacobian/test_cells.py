"""The cells strategy: its proof, its plan, and its numbers against reverse mode."""

import functools

import flax.nnx as nnx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fairjax
from fairjax import losses
from fairjax.jacobian import _segments
from fairjax.jacobian._jaxprs import matrix_flops, trace_flat
from fairjax.jacobian._passes import SHARED, choose_passes, readers
from fairjax.jacobian._separability import analyse
from fairjax.jacobian._separable_ops import CoupledError, Kind

FEATURES, EXAMPLES = 6, 40
CELLS = fairjax.partition({"sex": ["f", "m", "x"] * 2, "died": [0, 0, 0, 1, 1, 1]})
slow = pytest.mark.slow


def make_batch(seed=0, size=EXAMPLES, **changes):
    rng = np.random.default_rng(seed)
    return {
        "x": jnp.asarray(rng.normal(size=(size, FEATURES)), jnp.float32),
        "y": jnp.asarray(rng.integers(0, 2, size), jnp.float32),
        "cells": jnp.asarray(rng.integers(-1, 6, size), jnp.int32),
        "weights": jnp.asarray(rng.uniform(0, 2, size), jnp.float32),
        "mask": jnp.asarray(rng.random(size) < 0.9),
    } | changes


def statistics(logits):
    """From ``logits(params, batch) -> [B]`` to a statistics function."""

    def fn(params, batch):
        z = logits(params, batch)
        return {
            "loss": jax.nn.softplus(z) - batch["y"] * z,
            "score": jax.nn.sigmoid(z),
        }

    return fn


def mlp(params, batch):
    hidden = jax.nn.relu(batch["x"] @ params["w"] + params["b"])
    return hidden @ params["v"] + params["c"]


def mlp_params(seed=0, width=5):
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(rng.normal(size=(FEATURES, width)), jnp.float32),
        "b": jnp.asarray(rng.normal(size=width), jnp.float32),
        "v": jnp.asarray(rng.normal(size=width), jnp.float32),
        "c": jnp.asarray(0.1, jnp.float32),
    }


def all_kinds():
    """Objectives that share no cell, share cells, and read two statistics."""
    functions = {
        "task": losses.task(CELLS),
        **losses.group_risks(CELLS, "sex"),
        "odds": losses.equalized_odds(CELLS, "sex", label="died", penalty="squared"),
        "parity": losses.demographic_parity(CELLS, "sex", reduction="smooth_max"),
    }
    return fairjax.cell_objectives(statistics(mlp), CELLS, functions)


@functools.cache
def few_kinds(logits=mlp):
    """A pass of three segments, and a pass of one."""
    parity = losses.demographic_parity(CELLS, "sex", penalty="squared")
    functions = {**losses.group_risks(CELLS, "sex"), "parity": parity}
    return fairjax.cell_objectives(statistics(logits), CELLS, functions)


@functools.cache
def one_kind(logits):
    """A pass of three segments, of which models meet all that differs between them."""
    risks = losses.group_risks(CELLS, "sex")
    return fairjax.cell_objectives(statistics(logits), CELLS, risks)


def in_double(objectives, params, batch):
    """Values and Jacobian by plain reverse mode in float64."""

    def wide(x):
        x = np.asarray(x)
        return x.astype(np.float64) if x.dtype == np.float32 else x

    with jax.enable_x64(True):
        found = reverse_mode(objectives)(*jax.tree.map(wide, (params, batch)))
        return jax.tree.map(np.asarray, found[::-1])


@functools.cache
def reverse_mode(objectives):
    return jax.jit(jax.jacrev(lambda p, b: (objectives(p, b),) * 2, has_aux=True))


@functools.cache
def compiled(objectives, strategy):
    return jax.jit(fairjax.value_and_jacobian(objectives, strategy=strategy))


def by_cells(objectives):
    return compiled(objectives, "cells")


def assert_close(got, expected, tolerance=2e-5):
    for path, leaf in jax.tree.leaves_with_path(expected):
        scale = max(np.abs(leaf).max(initial=0), 1e-3)
        found = dict(jax.tree.leaves_with_path(got))[path]
        np.testing.assert_allclose(found, leaf, atol=tolerance * scale, rtol=0)


def dense(params, batch):
    return (batch["x"] @ params["w"]).sum(-1)


def layer_norm(params, batch):
    h = batch["x"] @ params["w"]
    h = (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-5)
    return jnp.tanh(h * params["b"] + params["b"] ** 2) @ params["v"]


def vmapped(params, batch):
    def one(x):
        return jax.nn.gelu(x @ params["w"] + params["b"]) @ params["v"]

    return jax.vmap(one)(batch["x"])


def weight_norm(params, batch):
    w = params["w"] / jnp.linalg.norm(params["w"], axis=0)
    return jnp.exp(params["c"]) * (jax.nn.silu(batch["x"] @ w) @ params["v"])


def tied(params, batch):
    h = jax.nn.softplus(batch["x"] @ params["w"])
    return ((h @ params["w"].T) ** 2).sum(-1) + params["c"] ** 2


def attention(params, batch):
    tokens = batch["x"].reshape(-1, 3, 2)
    q = tokens @ params["w"][:2]
    weights = jax.nn.softmax(
        jnp.einsum("bqd,bkd->bqk", q, jnp.tanh(q + params["b"])), -1
    )
    return jnp.einsum("bqk,bkd->bqd", weights, q).mean(1) @ params["v"]


def class_token(params, batch):
    tokens = batch["x"].reshape(-1, 3, 2) @ params["w"][:2]
    first = jnp.broadcast_to(params["b"], (tokens.shape[0], 1, 5))
    return jax.nn.logsumexp(jnp.concatenate([first, tokens], 1), 1) @ params["v"]


def embedding(params, batch):
    table = params["w"] * params["b"]
    return table[batch["level"]] @ params["v"] + batch["x"][:, 0]


def convolution(params, batch):
    image = batch["x"].reshape(-1, 6, 1)
    kernel = params["w"][:3, None, :2]
    h = jax.lax.conv_general_dilated(
        image, kernel, (1,), "SAME", None, None, ("NWC", "WIO", "NWC")
    )
    return nnx.max_pool(jnp.tanh(h), (2,), strides=(2,)).sum((1, 2))


def dropout(params, batch):
    keep = jax.random.bits(jax.random.key(3), batch["x"].shape, jnp.uint8) < 180
    return mlp(params, {"x": jnp.where(keep, batch["x"] / 0.7, 0.0)})


def rematerialised(params, batch):
    return jax.checkpoint(mlp)(params, batch)


def looped(params, batch):
    def step(h, w):
        return jnp.tanh(h @ w), None

    square = params["w"][:5] @ params["w"][:5].T
    h, _ = jax.lax.scan(step, batch["x"][:, :5], jnp.stack([square, square.T]))
    return h @ params["v"]


def recurrent(params, batch):
    def step(h, x):
        return jnp.tanh(h + x[:, None] * params["b"] + h @ params["w"][:5]), None

    start = jnp.zeros((batch["x"].shape[0], 5))
    return jax.lax.scan(step, start, batch["x"].T)[0] @ params["v"]


# Dropout depends on an example's place, which a loop with parameters may not.
TOGETHER = [
    [mlp, attention, recurrent, embedding, looped],
    [class_token, layer_norm, vmapped, tied, weight_norm],
    [dense, dropout, convolution, rematerialised],
]
SEPARABLE = [logits for models in TOGETHER for logits in models]


def side_by_side(models):
    """Their sum, each of parameters of its own, and none so large as to drown one."""

    def logits(params, batch):
        return sum(jnp.arcsinh(f(params[f.__name__], batch)) for f in models)

    return logits


@slow
@pytest.mark.parametrize("models", TOGETHER, ids=range(len(TOGETHER)))
def test_models_agree_with_reverse_mode_in_double_precision(models):
    """Several models in one program, each of which has rows and a scale of its own."""
    batch = make_batch(level=jnp.arange(EXAMPLES) % FEATURES)
    objectives = one_kind(side_by_side(models))
    params = {f.__name__: mlp_params(seed) for seed, f in enumerate(models)}
    got = by_cells(objectives)(params, batch)
    assert_close(got, in_double(objectives, params, batch))


@pytest.mark.parametrize("logits", SEPARABLE, ids=lambda f: f.__name__)
def test_models_are_proven_separable(logits):
    batch = make_batch(level=jnp.arange(EXAMPLES) % FEATURES)
    plan = fairjax.jacobian.explain(few_kinds(logits))(mlp_params(), batch)
    assert "cells" in plan.costs


SHARED_CELLS = all_kinds()


@slow
@pytest.mark.parametrize("size", [60, 1])
@hypothesis.given(
    cells=st.lists(st.integers(-1, 6), min_size=60, max_size=60),
    weights=st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=60, max_size=60),
    mask=st.lists(st.booleans(), min_size=60, max_size=60),
)
@hypothesis.settings(max_examples=15)
def test_any_assignment_to_cells_is_exact(size, cells, weights, mask):
    batch = make_batch(
        size=size,
        cells=jnp.asarray(cells[:size], jnp.int32),
        weights=jnp.asarray(weights[:size], jnp.float32),
        mask=jnp.asarray(mask[:size]),
    )
    params = mlp_params()
    got = by_cells(SHARED_CELLS)(params, batch)
    assert_close(got, in_double(SHARED_CELLS, params, batch))


@slow
@pytest.mark.parametrize("cell", [0, 5])
def test_all_examples_in_one_cell_overflow_the_windows(cell):
    size = 60
    batch = make_batch(size=size, cells=jnp.full(size, cell, jnp.int32))
    objectives, params = SHARED_CELLS, mlp_params()
    assert max(_segments.capacities([size / 6] * 6, size)) < size / 3
    assert_close(
        by_cells(objectives)(params, batch),
        in_double(objectives, params, batch),
    )


def test_values_and_rows_by_hand():
    cells = fairjax.partition({"sex": ["f", "m"]})
    objectives = fairjax.cell_objectives(
        lambda w, batch: {"loss": w * batch["x"]},
        cells,
        {"task": losses.task(cells), **losses.group_risks(cells, "sex")},
    )
    batch = {"x": jnp.array([1.0, 2.0, 6.0]), "cells": jnp.array([0, 1, 1])}
    values, rows = by_cells(objectives)(jnp.array(2.0), batch)
    np.testing.assert_allclose(values, [6.0, 2.0, 8.0], rtol=1e-6)
    np.testing.assert_allclose(rows, [3.0, 1.0, 4.0], rtol=1e-6)


@slow
def test_under_vmap_over_seeds_and_batches_and_under_scan():
    """All in one program: seeds and batches are mapped apart, around and in a scan."""
    objectives, run = few_kinds(), by_cells(few_kinds())
    seeds = [[mlp_params(seed), mlp_params(seed + 1)] for seed in (0, 2)]
    batches = [make_batch(seed) for seed in range(2)]

    def stack(trees):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def scanned(several, batches):
        over_batches = jax.vmap(run, (None, 0))
        return jax.lax.scan(lambda c, p: (c, over_batches(p, batches)), 0, several)[1]

    found = scanned(stack([stack(pair) for pair in seeds]), stack(batches))
    for i, j, k in np.ndindex(2, 2, 2):
        one = jax.tree.map(lambda leaf, at=(i, j, k): leaf[at], found)
        assert_close(one, in_double(objectives, seeds[i][j], batches[k]))


@slow
def test_bfloat16_parameters_have_bfloat16_rows():
    objectives, batch = few_kinds(), make_batch()
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), mlp_params())
    _, rows = by_cells(objectives)(params, batch)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    _, expected = in_double(objectives, wide, batch)
    assert {leaf.dtype for leaf in jax.tree.leaves(rows)} == {jnp.dtype(jnp.bfloat16)}
    assert_close(jax.tree.map(np.float32, rows), expected, tolerance=0.05)


def test_a_masked_example_may_hold_nan():
    objectives = fairjax.cell_objectives(
        statistics(mlp), CELLS, losses.group_risks(CELLS, "sex")
    )
    batch = make_batch()
    batch["mask"] = batch["mask"].at[3].set(False)
    run = by_cells(objectives)
    expected = run(mlp_params(), batch)
    batch["x"] = batch["x"].at[3].set(jnp.nan)
    assert_close(run(mlp_params(), batch), expected)


def test_reading_an_undeclared_cell_gives_nan_rows_of_that_objective_alone():
    cells = fairjax.partition({"sex": ["f", "m"]})
    sly = fairjax.CellFunction(
        lambda means, counts: means["loss"].sum(), ("loss",), np.array([True, False])
    )
    risk = losses.task(cells)
    objectives = fairjax.cell_objectives(
        lambda w, batch: {"loss": w * batch["x"]}, cells, {"sly": sly, "task": risk}
    )
    batch = {"x": jnp.array([1.0, 3.0]), "cells": jnp.array([0, 1])}
    _, rows = by_cells(objectives)(jnp.array(1.0), batch)
    np.testing.assert_array_equal(rows, [np.nan, 2.0])


class Network(nnx.Module):
    """A linear layer, a normalisation and a read-out."""

    def __init__(self, norm, rngs):
        self.inner = nnx.Linear(FEATURES, 8, rngs=rngs)
        self.norm = norm(8, rngs=rngs)
        self.outer = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        return self.outer(nnx.relu(self.norm(self.inner(x))))[:, 0]


def flax_logits(norm, *, training=False):
    module = Network(norm, nnx.Rngs(0))
    module.train() if training else module.eval()
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    def logits(params, batch):
        return nnx.merge(graph, params, rest, copy=True)(batch["x"])

    return logits, nnx.to_pure_dict(params)


@slow
@pytest.mark.parametrize("norm", [nnx.LayerNorm, nnx.BatchNorm], ids=["layer", "batch"])
def test_flax_norms_that_keep_examples_apart(norm):
    logits, params = flax_logits(norm)
    objectives, batch = one_kind(logits), make_batch()
    assert_close(
        by_cells(objectives)(params, batch), in_double(objectives, params, batch)
    )


def test_batch_norm_in_training_is_refused_with_the_remedy():
    logits, params = flax_logits(nnx.BatchNorm, training=True)
    objectives, batch = few_kinds(logits), make_batch()
    with pytest.raises(ValueError, match="reduce_sum.*running statistics.*GroupNorm"):
        by_cells(objectives)(params, batch)
    plan = fairjax.jacobian.explain(objectives)(params, batch)
    assert plan.strategy == "pulls"
    assert "combines examples" in plan.reason


@slow
def test_batch_norm_in_training_is_pulled():
    logits, params = flax_logits(nnx.BatchNorm, training=True)
    objectives, batch = one_kind(logits), make_batch()
    plain = compiled(objectives, "jacrev")(params, batch)
    assert_close(compiled(objectives, "auto")(params, batch), plain)


@jax.custom_vjp
def centred_backwards(x):
    return 2 * x


centred_backwards.defvjp(lambda x: (2 * x, None), lambda _, g: (g - g.mean(0),))


def per_device_seed(params, batch):
    return dense(params, batch) + jax.vmap(
        lambda seed: jax.random.normal(jax.random.key(seed))
    )(batch["cells"])


COUPLED = {
    "contrast": lambda p, b: jax.nn.logsumexp(
        (b["x"] @ p["w"]) @ (b["x"] @ p["w"]).T, 1
    ),
    "sort": lambda p, b: jnp.sort(dense(p, b)),
    "reverse": lambda p, b: dense(p, b)[::-1],
    "shift": lambda p, b: jnp.roll(dense(p, b), 1),
    "cumulate": lambda p, b: jnp.cumsum(dense(p, b)),
    "pick": lambda p, b: dense(p, b)[jnp.zeros(EXAMPLES, int)],
    "flip": lambda p, b: (b["x"][:6] @ p["w"]).T.reshape(-1)[:1] + dense(p, b),
    "pairs": lambda p, b: (dense(p, b)[:, None] - dense(p, b)[None]).max(1),
    "scan": lambda p, b: jax.lax.scan(lambda c, z: (c + z, c), 0.0, dense(p, b))[1],
    "derivative": lambda p, b: centred_backwards(b["x"] @ p["w"]).sum(1),
    "per example": lambda p, b: dense(p, b) * jnp.resize(p["w"], EXAMPLES),
    "unknown primitive": per_device_seed,
}


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def with_gradient(change, x):
    """The identity, with its gradient changed on the way back."""
    return x


with_gradient.defvjp(lambda change, x: (x, None), lambda change, _, g: (change(g),))
COUPLED["clipped gradient"] = lambda p, b: with_gradient(
    lambda g: jnp.clip(g, -1e-3, 1e-3), dense(p, b)
)
COUPLED["normalised gradient"] = lambda p, b: with_gradient(
    lambda g: g / (1e-6 + jnp.abs(g)), dense(p, b)
)
COUPLED["clipped gradient of a parameter"] = lambda p, b: dense(
    jax.tree.map(lambda w: with_gradient(jnp.sign, w), p), b
)
COUPLED["clipped gradient in a loop"] = lambda p, b: dense(
    jax.lax.fori_loop(
        0, 2, lambda _, q: jax.tree.map(lambda w: with_gradient(jnp.sign, w), q), p
    ),
    b,
)
COUPLED["shifted gradient"] = lambda p, b: with_gradient(lambda g: g + 1, dense(p, b))


@slow
def test_a_linear_derivative_of_a_users_own():
    """Scaled, then selected, then multiplied."""

    def change(g):
        scaled = -2 * g
        chosen = jnp.where(jnp.arange(2) > 0, scaled.reshape(-1, 1), 0.0).sum(1) / 3
        return (chosen[:, None] @ jnp.ones((1, 2))).astype(jnp.float32)[:, 0] + 0.0

    def logits(params, batch):
        return with_gradient(change, dense(params, batch))

    objectives, batch, params = one_kind(logits), make_batch(), mlp_params()
    plain = compiled(objectives, "jacrev")(params, batch)
    assert_close(by_cells(objectives)(params, batch), plain)


@pytest.mark.parametrize("name", COUPLED)
def test_coupled_examples_are_found(name):
    objectives, batch, params = few_kinds(COUPLED[name]), make_batch(), mlp_params()
    with pytest.raises(ValueError, match="one by one"):
        by_cells(objectives)(params, batch)
    assert fairjax.jacobian.explain(objectives)(params, batch).strategy == "pulls"


@slow
@pytest.mark.parametrize("name", ["contrast", "scan", "derivative"])
def test_coupled_examples_take_the_general_path(name):
    objectives, batch, params = one_kind(COUPLED[name]), make_batch(), mlp_params()
    plain = compiled(objectives, "jacrev")(params, batch)
    assert_close(compiled(objectives, "auto")(params, batch), plain)


def test_a_loop_with_weights_may_not_depend_on_the_size_of_the_batch():
    def logits(params, batch):
        return looped(params, batch) / batch["x"].shape[0]

    with pytest.raises(ValueError, match="number of examples"):
        by_cells(few_kinds(logits))(mlp_params(), make_batch())


@slow
@hypothesis.given(st.integers(0, 10_000))
@hypothesis.settings(max_examples=20)
def test_what_is_proven_separate_is_so(seed):
    """Random chains of operations: proven ones change one output for one example."""
    rng = np.random.default_rng(seed)
    chain = rng.choice(len(STEPS), 4)

    def run(x):
        for step in chain:
            x = STEPS[step](x)
        return x

    size = 7
    x = jnp.asarray(rng.normal(size=(size, 3, 7)), jnp.float32)
    closed = trace_flat(run, x)
    try:
        found = analyse(closed.jaxpr, [Kind(0)], size)
    except CoupledError:
        return
    axis = found.kinds[closed.jaxpr.outvars[0]].axis
    # By one program: two that are compiled together may round differently.
    compiled_run = jax.jit(run)
    changed = np.asarray(compiled_run(x)) != compiled_run(x.at[2].add(1.0))
    others = np.delete(np.moveaxis(changed, axis, 0), 2, 0)
    assert not others.any()


STEPS = [
    lambda x: jnp.swapaxes(x, 0, -1),
    lambda x: jnp.swapaxes(x, 0, 1),
    lambda x: x - x.mean(-1, keepdims=True),
    lambda x: x - x.max(0, keepdims=True),
    lambda x: jnp.sort(x, axis=-1),
    lambda x: x.reshape(x.shape[0], -1, 1) * 2,
    lambda x: x.reshape(x.shape[0], 1, -1) + 1,
    lambda x: jnp.cumsum(x, axis=1),
    lambda x: jnp.concatenate([x, -x], axis=1)[:, ::2],
    lambda x: jnp.einsum("abc,abd->acd", x, x),
    lambda x: jax.nn.softmax(x, axis=1),
    lambda x: jnp.where(x > 0, x, jnp.arange(x.shape[-1])),
    lambda x: jnp.take(x, jnp.array([0, 0, 1]) % x.shape[1], axis=1),
]


def test_plan_of_disjoint_groups_is_one_pass_without_mixing():
    objectives = fairjax.cell_objectives(
        statistics(mlp), CELLS, losses.group_risks(CELLS, "sex")
    )
    (only,) = choose_passes(readers(objectives), len)
    assert [segment.objective for segment in only.segments] == [0, 1, 2]
    np.testing.assert_array_equal(
        only.segment_of_cell, [CELLS.codes[c, 0] for c in range(6)]
    )


def test_plan_of_shared_cells_mixes_where_that_is_cheaper():
    reads = readers(SHARED_CELLS)
    mixed = choose_passes(reads, lambda passes: len(passes))
    pulled = choose_passes(
        reads,
        lambda passes: sum(s.objective == SHARED for p in passes for s in p.segments),
    )
    assert [len(one.segments) for one in mixed] == [6, 6]
    assert [len(one.segments) for one in pulled] == [1, 3, 1, 1]


def test_capacities_hold_two_deviations_and_share_lengths():
    lengths = _segments.capacities([128.0] * 32, 4096)
    assert set(lengths) == {152}
    # 900 + 2·sqrt(90) = 919 and 100 + 19 = 119, in eights.
    assert _segments.capacities([900.0, 100.0], 1000) == [920, 120]
    # One length, 152, costs less than to bring 136 and 152 together.
    assert _segments.capacities([112.0, 128.0], 4096) == [152, 152]
    assert _segments.capacities([0.0, 3.0], 3) == [3, 3]


def test_flops_of_products_convolutions_and_loops():
    x, w = jnp.ones((4, 8)), jnp.ones((8, 8))
    product = trace_flat(lambda w: x @ w, w)
    loop = trace_flat(
        lambda w: jax.lax.scan(lambda h, _: (h @ w, None), x, None, 3)[0], w
    )
    assert matrix_flops(product.jaxpr) == 2 * 4 * 8 * 8
    assert matrix_flops(loop.jaxpr) == 3 * 2 * 4 * 8 * 8
    image, kernel = jnp.ones((2, 5, 5, 3)), jnp.ones((3, 3, 3, 4))
    conv = trace_flat(
        lambda k: jax.lax.conv_general_dilated(
            image, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        kernel,
    )
    assert matrix_flops(conv.jaxpr) == 2 * (2 * 5 * 5 * 4) * (3 * 3 * 3)
