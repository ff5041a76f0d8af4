"""The multimodal classifier: NumPy's values, absent modalities, and the Jacobian."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fairjax
from fairjax import losses
from fairjax.models import (
    MLP,
    MultimodalClassifier,
    SeriesEncoder,
    TabularEncoder,
    TextEncoder,
    ViT,
    VolumeEncoder,
    functional,
)
from tests.models import numpy_transformer as oracle

B, LABS, TIMES, WIDTH, HEADS, OUTPUTS = 12, 3, 4, 8, 2, 2
# The order is not that of the alphabet.
NAMES = ("vitals", "labs", "notes")


def make(pool="mean", **options):
    rngs = nnx.Rngs(0)
    encoders = {
        "vitals": SeriesEncoder(3, 6, 1, 2, max_length=TIMES, rngs=rngs),
        "labs": TabularEncoder(LABS, 4, 1, 2, rngs=rngs),
        "notes": MLP(5, (), 7, rngs=rngs),
    }
    widths = {"vitals": 6, "labs": 4, "notes": 7}
    sizes = {"width": WIDTH, "num_heads": HEADS, "num_outputs": OUTPUTS, "depth": 1}
    return MultimodalClassifier(
        encoders, widths, **(sizes | options), pool=pool, rngs=rngs
    )


@functools.cache
def abstract():
    return nnx.eval_shape(make)


@functools.cache
def built(pool):
    """A compiled model, its compiled gradient, and parameters."""
    apply, params = oracle.drawn(functools.partial(make, pool))

    def loss(params, inputs, present):
        found = apply(params, inputs, present)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in found), found

    both = jax.jit(jax.grad(loss, has_aux=True))
    # The quick tests have no use for gradients; of the other pool one program does.
    run = jax.jit(apply) if pool == "mean" else lambda *given: both(*given)[1]
    return run, lambda *given: both(*given)[0], params


def draw(seed=0):
    rng = np.random.default_rng(seed)
    vitals = {
        "times": jnp.asarray(rng.uniform(0, 48, (B, TIMES)), jnp.float32),
        "variables": jnp.asarray(rng.integers(0, 3, (B, TIMES)), jnp.int32),
        "values": jnp.asarray(rng.normal(size=(B, TIMES)), jnp.float32),
        "mask": jnp.asarray(rng.random((B, TIMES)) < 0.7),
    }
    labs = jnp.asarray(rng.normal(size=(B, LABS)), jnp.float32)
    known = jnp.asarray(rng.random((B, LABS)) < 0.8)
    notes = jnp.asarray(rng.normal(size=(B, 5)), jnp.float32)
    return {"vitals": vitals, "labs": (labs, known), "notes": (notes,)}


INPUTS = draw()
# The first patient has all modalities, the last has none.
PRESENT = np.random.default_rng(1).random((B, len(NAMES))) < 0.6
PRESENT[0], PRESENT[-1] = True, False
# Each modality is the first that is present of some patient.
PRESENT[1], PRESENT[2] = [False, False, True], [False, True, True]
PRESENT = jnp.asarray(PRESENT)


@functools.cache
def features():
    """The encoders' features, from modules that have tests of their own."""
    params, found = built("mean")[2], {}
    for name, given in INPUTS.items():
        graph, _, rest = nnx.split(abstract().encoders[name], nnx.Param, ...)
        run = nnx.jit(nnx.merge(graph, params["encoders"][name], rest))
        made = run(**given) if isinstance(given, dict) else run(*given)
        found[name] = np.asarray(made, np.float64)
    return found


FIRST = pytest.param("first", marks=pytest.mark.slow)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pool", "present"),
    [("mean", None), ("mean", PRESENT), ("first", PRESENT)],
    ids=["mean-all", "mean-some", "first-some"],
)
def test_values_are_those_of_numpy(pool, present):
    run, _, params = built(pool)
    found = run(params, INPUTS, present)
    params = oracle.double(params)
    for i in range(B):
        here = np.ones(3, bool) if present is None else np.asarray(present[i])
        tokens = np.zeros((3, WIDTH))
        for m in np.flatnonzero(here):
            part = params["projections"][NAMES[m]]
            line = oracle.linear(part["linear"], features()[NAMES[m]][i : i + 1])
            tokens[m] = oracle.layer_norm(part["norm"], line)[0]
        used = np.flatnonzero(here) if here.any() else np.arange(3)
        rows = oracle.transform(
            params["fusion"], (tokens + params["embeddings"])[used], HEADS
        )
        pooled = rows.mean(0) if pool == "mean" else rows[0]
        head = params["classifier"]
        hidden = oracle.linear(head["hidden"], pooled)[None]
        hidden = oracle.gelu(oracle.layer_norm(head["norm"], hidden))[0]
        close = functools.partial(np.testing.assert_allclose, atol=1e-4)
        close(found.last_inputs[i], hidden)
        close(found.logits[i], oracle.linear(head["last"], hidden))
        for m in np.flatnonzero(here):
            head = params["auxiliary"][NAMES[m]]
            hidden = np.maximum(oracle.linear(head["hidden"], tokens[m]), 0)
            close(found.unimodal_last_inputs[i, m], hidden)
            close(found.unimodal_logits[i, m], oracle.linear(head["last"], hidden))


def test_parameters_lie_under_the_modalities_names():
    model = abstract()
    _, params = functional(model)
    assert model.modalities == NAMES
    for part in ("encoders", "projections", "auxiliary"):
        assert set(params[part]) == set(NAMES)
    params = jax.tree.map(lambda leaf: leaf.shape, params)
    shapes = {"bias": (OUTPUTS,), "kernel": (WIDTH, OUTPUTS)}
    assert params["classifier"]["last"] == shapes
    for name in NAMES:
        assert params["auxiliary"][name]["last"] == shapes


@pytest.mark.parametrize("garbage", [1e6, np.nan])
@pytest.mark.parametrize("pool", ["mean", FIRST])
@pytest.mark.parametrize(
    "kind", ["outputs", pytest.param("gradients", marks=pytest.mark.slow)]
)
def test_absent_inputs_influence_neither_outputs_nor_gradients(kind, pool, garbage):
    run, differentiate, params = built(pool)
    f = run if kind == "outputs" else differentiate

    def spoil(column, leaf):
        absent = ~np.asarray(PRESENT)[:, column].reshape(-1, *[1] * (leaf.ndim - 1))
        if leaf.dtype == bool:
            return np.asarray(leaf) ^ absent
        wrong = garbage if jnp.issubdtype(leaf.dtype, jnp.floating) else -5
        return np.where(absent, np.asarray(wrong, leaf.dtype), leaf)

    spoiled = {
        name: jax.tree.map(functools.partial(spoil, m), INPUTS[name])
        for m, name in enumerate(NAMES)
    }
    found, expected = f(params, spoiled, PRESENT), f(params, INPUTS, PRESENT)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


@pytest.mark.slow
def test_a_patient_without_modalities_teaches_no_encoder():
    run, differentiate, params = built("mean")
    nothing = jnp.zeros((B, 3), bool)
    logits = run(params, INPUTS, nothing).logits
    np.testing.assert_allclose(logits, jnp.broadcast_to(logits[:1], logits.shape))
    gradients = differentiate(params, INPUTS, nothing)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    for part in ("encoders", "projections"):
        for leaf in jax.tree.leaves(gradients[part]):
            np.testing.assert_array_equal(leaf, 0)
    assert np.abs(gradients["embeddings"]).max() > 1e-3


@functools.cache
def taught():
    """Gradients of the auxiliary logits' squares, of which one kind counts."""
    apply, _ = functional(abstract())

    def loss(params, attached):
        outputs = apply(params, INPUTS)
        kinds = outputs.unimodal_logits, outputs.attached_unimodal_logits
        return jnp.sum(jnp.where(attached, kinds[1], kinds[0]) ** 2)

    return jax.jit(jax.grad(loss))


@pytest.mark.slow
@pytest.mark.parametrize("attached", [True, False])
def test_auxiliary_heads_teach_encoders_where_attached(attached):
    run, _, params = built("mean")
    found = run(params, INPUTS, None)
    np.testing.assert_allclose(
        found.attached_unimodal_logits, found.unimodal_logits, rtol=1e-6
    )
    gradients = taught()(params, attached)
    for part in ("encoders", "projections"):
        for name in NAMES:
            largest = max(
                np.abs(x).max() for x in jax.tree.leaves(gradients[part][name])
            )
            assert (largest > 0) == attached
    for name in NAMES:
        assert np.abs(gradients["auxiliary"][name]["last"]["kernel"]).max() > 1e-3
    assert not np.abs(gradients["classifier"]["last"]["kernel"]).any()


@pytest.mark.slow
def test_half_precision():
    run, _, params = built("mean")

    def halved(path, leaf):
        if leaf.dtype != jnp.float32 or jax.tree_util.keystr(path).endswith(
            "['times']"
        ):
            return leaf  # Hours are not values, and stay exact.
        return leaf.astype(jnp.bfloat16)

    half = jax.tree_util.tree_map_with_path(halved, INPUTS)
    rounded = jax.tree.map(
        lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, half
    )
    found, expected = run(params, half, PRESENT), run(params, rounded, PRESENT)
    np.testing.assert_allclose(found.logits, expected.logits, atol=0.05)


@functools.cache
def with_dropout():
    """A model that drops, and a compiled gradient of what bends its heads."""
    apply, params = oracle.drawn(functools.partial(make, dropout=0.5))

    def bent(params, key):
        found = apply(params, INPUTS, PRESENT, nnx.Rngs(key))
        metered, through = found.unimodal_logits, found.attached_unimodal_logits
        loss = jnp.sum((through - metered + jax.lax.stop_gradient(metered)) ** 2)
        return loss, found

    return apply, params, jax.jit(jax.grad(bent, has_aux=True))


@pytest.mark.slow
def test_dropout_draws_where_there_are_keys_only():
    apply, params, differentiate = with_dropout()

    def run(seed):
        return differentiate(params, jax.random.key(seed))[1].logits

    # Without a key, the program of a model without dropout.
    still, _, _ = built("mean")
    programs = [
        one.lower(params, INPUTS, PRESENT).as_text() for one in (jax.jit(apply), still)
    ]
    assert programs[0] == programs[1]
    np.testing.assert_array_equal(run(1), run(1))
    assert not np.allclose(run(1), run(2), atol=0.05)


@pytest.mark.slow
def test_heads_drop_the_same_units_attached_or_not():
    """So that what reaches the encoders alone can be told from what bends the heads."""
    _, params, differentiate = with_dropout()
    gradient, found = differentiate(params, jax.random.key(1))
    np.testing.assert_array_equal(found.unimodal_logits, found.attached_unimodal_logits)
    heads, encoders = gradient["auxiliary"], gradient["encoders"]
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(heads))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(encoders))


CELLS = fairjax.partition({"sex": ["f", "m"] * 2, "died": [0, 0, 1, 1]})


def clinical(seed=0, kinds=("labs", "vector")):
    """A classifier and its inputs, with encoders of these kinds."""
    rng = np.random.default_rng(0)
    inputs = {
        **{name: draw()[name] for name in ("labs", "vitals")},
        "vector": draw()["notes"],
        "notes": (jnp.asarray(rng.integers(0, 5, (B, 3))), jnp.ones((B, 3), bool)),
        "scan": (jnp.asarray(rng.normal(size=(B, 2, 4, 4, 1)), jnp.float32),),
    }

    def build():
        rngs = nnx.Rngs(0)
        sizes = {"width": 4, "depth": 1, "num_heads": 2, "rngs": rngs}
        vit = ViT(4, 2, **sizes, num_channels=1)
        encoders = {
            "labs": TabularEncoder(LABS, **sizes, dropout=0.2),
            "vitals": SeriesEncoder(3, **sizes, max_length=TIMES, dropout=0.2),
            "vector": MLP(5, (), 4, rngs=rngs),
            "notes": TextEncoder(5, **sizes, max_length=3),
            "scan": VolumeEncoder(vit, 2, depth=1, num_heads=2, rngs=rngs),
        }
        chosen = {kind: encoders[kind] for kind in kinds}
        return MultimodalClassifier(chosen, dict.fromkeys(kinds, 4), **sizes)

    batch = {
        "inputs": {kind: inputs[kind] for kind in kinds},
        "present": jnp.asarray(rng.random((B, len(kinds))) < 0.7),
        "y": jnp.asarray(rng.integers(0, 2, B), jnp.float32),
        "cells": jnp.asarray(rng.integers(0, 4, B), jnp.int32),
    }
    return *oracle.drawn(build, seed), batch


RISKS = losses.risk_parity(CELLS, "sex", penalty="squared")
ODDS = losses.equalized_odds(CELLS, "sex", label="died", penalty="squared")


def objectives_of(apply, functions, rngs_seed=None):
    def statistics(params, batch):
        rngs = None if rngs_seed is None else nnx.Rngs(rngs_seed)
        found = apply(params, batch["inputs"], batch["present"], rngs)
        logits = jnp.concatenate([found.logits[:, None], found.unimodal_logits], axis=1)
        loss = jax.nn.softplus(logits) - batch["y"][:, None, None] * logits
        return {
            "loss": loss.sum((1, 2)),
            "score": jax.nn.sigmoid(found.logits[:, 0]),
        }

    return fairjax.cell_objectives(statistics, CELLS, functions)


@pytest.mark.slow
def test_examples_are_proven_separate():
    """Of all kinds of encoders, of which two drop."""
    apply, params, batch = clinical(kinds=("labs", "vitals", "notes", "scan"))
    objectives = objectives_of(apply, {"risks": RISKS, "odds": ODDS}, rngs_seed=3)
    plan = fairjax.jacobian.explain(objectives)(params, batch)
    assert "cells" in plan.costs, plan.reason


@pytest.mark.slow
def test_jacobian_by_cells_over_seeds():
    apply, _, batch = clinical()
    members = [clinical(seed)[1] for seed in (0, 1)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    # One pass: how passes go together is the same for all models.
    objectives = objectives_of(apply, {"risks": RISKS})
    found, expected = (
        jax.jit(jax.vmap(one, in_axes=(0, None)))(stacked, batch)
        for one in (
            fairjax.value_and_jacobian(objectives, strategy="cells"),
            fairjax.value_and_jacobian(objectives, strategy="jacrev"),
        )
    )
    for got, leaf in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        scale = max(np.abs(leaf).max(), 1e-3)
        np.testing.assert_allclose(got, leaf, atol=2e-5 * scale)


@pytest.mark.parametrize(
    ("encoders", "widths", "options", "message"),
    [
        ({}, {}, {}, "encoders must have at least one modality"),
        ({"labs": 4}, {"notes": 4}, {}, "encoders of 'labs', and widths of 'notes'"),
        ({"labs": 4}, {}, {}, "the same modalities; .* 'labs', and widths of none"),
        ({"items": 4}, {"items": 4}, {}, "name of a method; got 'items'"),
        ({"labs": 4}, {"labs": 0}, {}, "the width of 'labs' must be at least 1"),
        (
            {"labs": 4},
            {"labs": 4},
            {"num_outputs": 0},
            "num_outputs must be at least 1",
        ),
        ({"labs": 4}, {"labs": 4}, {"width": 6}, "got num_heads=4, width=6"),
    ],
)
def test_wrong_settings(encoders, widths, options, message):
    def make():
        rngs = nnx.Rngs(0)
        made = {name: nnx.Linear(2, w, rngs=rngs) for name, w in encoders.items()}
        return MultimodalClassifier(made, widths, **options, rngs=rngs)

    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(make)


X = np.ones((3, 2), np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [float, int])
def test_presence_in_numbers(untyped, kind):
    run, _, params = built("mean")
    found, wanted = (run(params, INPUTS, p) for p in (PRESENT.astype(kind), PRESENT))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_wrong_pool(untyped):
    message = "pool must be 'mean' or 'first'; got 'median'"
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(functools.partial(make, "median"))


@pytest.mark.parametrize(
    ("inputs", "present", "message"),
    [
        ({"labs": (X,)}, None, "the model's modalities 'labs', 'notes'; got 'labs'"),
        ({"labs": (X,), "notes": (X,), "x": (X,)}, None, "got 'labs', 'notes', 'x'"),
        (
            {"labs": (X,), "notes": X},
            None,
            "inputs of 'notes' must be a tuple or dict .*; got",
        ),
        ({"labs": (X,), "notes": (X[:2],)}, None, r"one length; got \[\(2,\), \(3,\)"),
        (
            {"labs": (X,), "notes": (X,)},
            np.ones((3, 1), bool),
            r"\(3, 2\), .*; got \(3, 1\)",
        ),
        (
            {"labs": (X,), "notes": (X,)},
            np.ones((2, 2), bool),
            r"\(3, 2\), .*; got \(2, 2\)",
        ),
        (
            {"labs": (X[..., None, :],), "notes": (X,)},
            None,
            r"'labs' must return \[B, 4\].*got shape \(3, 1, 4",
        ),
    ],
)
def test_wrong_inputs(inputs, present, message):
    def run(inputs, present):
        rngs = nnx.Rngs(0)
        encoders = {name: nnx.Linear(2, 4, rngs=rngs) for name in ("labs", "notes")}
        widths = dict.fromkeys(encoders, 4)
        model = MultimodalClassifier(encoders, widths, width=4, depth=1, rngs=rngs)
        model(inputs, present)

    with pytest.raises(ValueError, match=message):
        jax.eval_shape(run, inputs, present)
