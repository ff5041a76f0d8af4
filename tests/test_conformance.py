"""Every public transformation under every rule of composition.

The rules are functions of a case of the table in :mod:`tests.conformance`.
"""

import functools
import inspect
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import fairjax
from fairjax import losses as group_losses
from fairjax import methods, training
from tests.conformance import CASES, DEPRECATED, LOSSES, PARAMS, ROWS, K, draw

# The case that keeps the rules in the quick lane; its state follows the losses.
QUICK_CASES = {"famo"}
# But for these, which compile the most.
DEAR_RULES = {
    *("accumulated_rows", "clip_each_row_before", "float64"),
    *("linen_under_jit_with_checkpoint_and_donation", "masked"),
    *("noise_on_each_row_before", "optimizers_after", "parts_by_label"),
    *("layer_by_layer", "scans_mapped_over_seeds_and_settings"),
    *("sharded_fully_auto", "sharded_fully_explicit"),
}
# One method of every kind: by level, with a state that follows losses, by coordinate,
# with a solution kept in its state, sequential with draws, a solver. They keep every
# rule; the others those that read something of the method, for which tracing may do.
KINDS = {"by_level", "famo", "graddrop", "nash_mtl", "pcgrad", "upgrad"}
# Those that keep the quick rules in the quick lane, and the rules that compile programs
# of their own, which the quick case alone keeps there.
QUICK_KINDS = KINDS - {"by_level", "nash_mtl"}
OWN_PROGRAMS = {"left_out_objectives", "one_objective"}
ONLY = {
    # Those whose state follows earlier updates, and one of the others.
    "accumulated_rows": {
        *("cr_mogm", "dwa", "famo", "gradnorm", "gradvac", "group_dro", "imtl_l"),
        *("modo", "nash_mtl", "pcd", "pcgrad", "positive_sum", "random_weighting"),
        "sdmgrad",
        *("uncertainty_weighting", "upgrad"),
    },
    # The explicit mesh is stricter.
    "sharded_fully_auto": {"famo", "graddrop", "upgrad"},
}
RULES, METHOD_RULES, QUICK_RULES = {}, set(), set()


def rule(function):
    RULES[function.__name__] = function
    return function


def method_rule(function):
    """A rule that reads something of the method, so that every case keeps it."""
    METHOD_RULES.add(function.__name__)
    return rule(function)


def quick_rule(function):
    """A rule that every case keeps, and the quick kinds in the quick lane."""
    QUICK_RULES.add(function.__name__)
    return rule(function)


def is_run(case):
    """Whether numbers are compared, as for a case that is not of the table, too."""
    return case not in [CASES[name] for name in set(CASES) - KINDS]


def update(transform, rows=ROWS, state=None, params=PARAMS, **extra):
    """An update of the tree that all rules share, and the state after it."""
    state = transform.init(params) if state is None else state
    extra = {"losses": LOSSES} | extra
    return transform.update(rows, state, params, **extra)


def plain(case, rows=ROWS, **settings):
    """The update of the transformation alone."""
    if rows is ROWS and not settings:
        return alone(case)[0]
    return update(case.make(num_objectives=K, **settings), rows)[0]


@functools.cache
def alone(case):
    """The first update of the transformation alone, and its state."""
    return update(case.make(num_objectives=K))


@functools.cache
def trunk_alone(case):
    """The first update of the trunk by itself."""
    transform = case.make(num_objectives=K)
    return update(transform, ROWS["trunk"], params=PARAMS["trunk"])[0]


def scaled(tree, factor):
    return jax.tree.map(lambda leaf: factor * leaf, tree)


def close(one, other, rtol=2e-4, atol=2e-5):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def same_kind(one, other):
    """Equal trees, shapes and dtypes: what a scan's carry needs."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert jnp.shape(a) == jnp.shape(b)
        assert jnp.result_type(a) == jnp.result_type(b)


# Before and after in a chain.


def compiled(transform):
    """The transformation, compiled once for all cases."""
    return optax.GradientTransformationExtraArgs(
        transform.init, jax.jit(transform.update)
    )


@functools.cache
def clip_each_row():
    return compiled(
        fairjax.per_objective(optax.clip_by_global_norm(1.0), num_objectives=K)
    )


@functools.cache
def noise_on_each_row():
    noise = optax.add_noise(eta=0.01, gamma=0.5, key=3)
    return compiled(fairjax.per_objective(noise, num_objectives=K))


@functools.cache
def every_second():
    return compiled(optax.MultiSteps(optax.sgd(1.0), 2).gradient_transformation())


@rule
def clip_each_row_before(case):
    found, _ = update(optax.chain(clip_each_row(), case.make(num_objectives=K)))
    norms = np.sqrt(np.diagonal(fairjax.gramian(ROWS)))
    shares = jnp.asarray(np.minimum(1, 1 / norms))
    clipped = jax.tree.map(
        lambda leaf: leaf * shares.reshape((-1,) + (1,) * (leaf.ndim - 1)), ROWS
    )
    close(found, plain(case, clipped), rtol=2e-3, atol=2e-4)


@rule
def noise_on_each_row_before(case):
    found, _ = update(optax.chain(noise_on_each_row(), case.make(num_objectives=K)))
    noisy, _ = update(noise_on_each_row())
    close(found, plain(case, noisy))


# An optimizer with a state, and little to compile.
MOMENTUM = optax.sgd(0.1, momentum=0.9)

AFTER = {
    "adamw": optax.adamw(0.1),
    "lion": optax.lion(0.1),
    "schedule_free": optax.contrib.schedule_free_sgd(0.1),
    "ema": optax.ema(0.9),
}


@rule
def optimizers_after(case):
    whole = case in [CASES[name] for name in QUICK_CASES]
    for after in AFTER.values() if whole else [MOMENTUM]:
        found, _ = update(optax.chain(case.make(num_objectives=K), after))
        expected, _ = after.update(plain(case), after.init(PARAMS), PARAMS)
        close(found, expected)


@rule
def parts_by_label(case):
    """A trunk reconciled from its own rows, and heads that are summed."""
    transform = fairjax.per_label(
        {
            "shared": case.make(num_objectives=K),
            "own": fairjax.scalarize(num_objectives=K),
        },
        {"trunk": "shared", "head": "own"},
    )
    found, _ = update(transform)
    close(found, {"trunk": trunk_alone(case), "head": ROWS["head"].sum(axis=0)})


@rule
def layer_by_layer(case):
    labels = {"trunk": {"w": "w", "b": "b"}, "head": "head"}
    make = functools.partial(case.make, num_objectives=K)
    found, _ = update(
        optax.partition({name: make() for name in ("w", "b", "head")}, labels)
    )
    layer, _ = update(make(), ROWS["head"], params=PARAMS["head"])
    close(found["head"], layer)
    layer, _ = update(make(), ROWS["trunk"]["w"], params=PARAMS["trunk"]["w"])
    close(found["trunk"]["w"], layer)


@rule
def masked(case):
    chosen = {"trunk": True, "head": False}
    rest = {"trunk": False, "head": True}
    found, _ = update(
        optax.chain(
            optax.masked(case.make(num_objectives=K), chosen),
            optax.masked(fairjax.scalarize(num_objectives=K), rest),
        )
    )
    close(found, {"trunk": trunk_alone(case), "head": ROWS["head"].sum(axis=0)})


@method_rule
def schedules_over_settings(case):
    static = ("num_objectives", *case.static)
    inject = optax.inject_hyperparams(case.make, static_args=static)
    settings = {}
    if case.setting is not None:
        name, first, second = case.setting
        settings[name] = lambda count: jnp.where(count < 1, first, second)
    transform = inject(num_objectives=K, **settings)
    start = transform.init(PARAMS)
    # Traced, but not compiled: scans_mapped_over_seeds_and_settings does that.
    traced = jax.eval_shape(functools.partial(update, transform), state=start)
    found, state = update(transform, state=start)
    same_kind(traced, (found, state))
    if case.setting is None:
        close(found, plain(case))
        return
    close(found, plain(case, **{name: first}))
    other, _ = update(transform, state=state)
    own = case.make(num_objectives=K, **{name: second})
    expected, _ = update(own, state=state.inner_state)
    close(other, expected)
    assert not all(
        np.allclose(a, b, atol=1e-6)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(other), strict=True)
    )


@rule
def accumulated_rows(case):
    transform = fairjax.accumulate(
        optax.chain(case.make(num_objectives=K), optax.sgd(0.5)),
        every=2,
        num_objectives=K,
    )
    run = jax.jit(functools.partial(update, transform))
    start = transform.init(PARAMS)
    if not is_run(case):
        same_kind(start, run.eval_shape(ROWS, start)[1])
        return
    found, state = run(ROWS, start, losses=LOSSES)
    close(found, scaled(PARAMS, 0.0))
    found, after = run(draw(2), state, losses=3 * LOSSES)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, ROWS, draw(2))
    expected, _ = update(case.make(num_objectives=K), mean, losses=2 * LOSSES)
    close(found, scaled(expected, -0.5))
    same_kind(state, after)


@rule
def multi_steps_after(case):
    transform = optax.chain(case.make(num_objectives=K), every_second())
    found, state = update(transform)
    close(found, scaled(PARAMS, 0.0))
    found, _ = update(transform, state=state)
    first, own = alone(case)
    second, _ = update(case.make(num_objectives=K), state=own)
    close(found, jax.tree.map(lambda a, b: -(a + b) / 2, first, second))


@rule
def apply_if_finite_after(case):
    transform = optax.chain(
        case.make(num_objectives=K),
        optax.apply_if_finite(optax.sgd(1.0), max_consecutive_errors=3),
    )
    broken = dict(ROWS, head=ROWS["head"].at[1, 0].set(jnp.nan))
    found, state = update(transform, broken)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert optax.tree.get(state, "total_notfinite") == 0
    np.testing.assert_array_equal(optax.tree.get(state, "nonfinite"), [0, 1, 0])


# What is left out, what is told, what is passed.


@quick_rule
def left_out_objectives(case):
    """A row that is not finite does as one that is masked, to the bit."""
    broken = dict(ROWS, head=ROWS["head"].at[1, 0].set(jnp.inf))
    transform = case.make(num_objectives=K)
    found, state = update(transform, broken)
    expected, other = update(transform, mask=jnp.array([True, False, True]))
    close(found, expected, rtol=0, atol=0)
    np.testing.assert_array_equal(state.nonfinite, [0, 1, 0])
    np.testing.assert_array_equal(other.nonfinite, [0, 0, 0])
    nothing, _ = update(transform, mask=jnp.zeros(K, bool))
    close(nothing, scaled(PARAMS, 0.0), rtol=0, atol=0)


@quick_rule
def one_objective(case):
    if case.single is None:
        return
    row = ROWS["head"][:1]
    transform = case.make(num_objectives=1)
    found, _ = update(transform, row, params=PARAMS["head"], losses=LOSSES[:1])
    close(found, case.single * row[0])


@quick_rule
def diagnostics(case):
    transform = optax.chain(case.make(num_objectives=K), optax.adamw(0.1))
    _, state = update(transform)
    np.testing.assert_array_equal(optax.tree.get(state, "nonfinite"), [0, 0, 0])
    if isinstance(state[0], fairjax.ReconcileState):
        norms = np.sqrt(np.diagonal(fairjax.gramian(ROWS)))
        np.testing.assert_allclose(optax.tree.get(state, "norms"), norms, rtol=1e-5)
        weights = optax.tree.get(state, "weights")
        close(plain(case), fairjax.combine(weights, ROWS))
        assert 0 < optax.tree.get(state, "conflict_share") < 1
    if optax.tree.get(state, "residual") is not None:
        assert 0 <= optax.tree.get(state, "residual") < 1e-3
        assert 0 <= optax.tree.get(state, "iterations") <= 200


@quick_rule
def extra_arguments(case):
    transform = optax.chain(case.make(num_objectives=K), optax.sgd(1.0))
    found, _ = update(transform, unknown="text", value=3.0)
    close(found, scaled(plain(case), -1.0))


# Models of every kind.


@rule
def flax_train_state(case):
    transform = optax.chain(case.make(num_objectives=K), optax.adamw(0.1))
    state = TrainState.create(apply_fn=None, params=PARAMS, tx=transform)
    after = training.apply_gradients(state, ROWS, losses=LOSSES)
    updates, opt_state = update(transform)
    close(after.params, optax.apply_updates(PARAMS, updates))
    close(after.opt_state, opt_state)
    assert int(after.step) == 1


@rule
def nnx_optimizer(case):
    model = nnx.Linear(4, 2, rngs=nnx.Rngs(0))
    transform = optax.chain(case.make(num_objectives=K), optax.sgd(0.1))
    optimizer = nnx.Optimizer(model, transform, wrt=nnx.Param)
    params = nnx.state(model, nnx.Param)
    before = jax.tree.map(jnp.copy, nnx.to_pure_dict(params))
    rows = jax.tree.map(lambda leaf: _rows_like(leaf, 5), params)
    optimizer.update(model, rows, losses=LOSSES)
    found = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    expected, _ = update(
        case.make(num_objectives=K), nnx.to_pure_dict(rows), params=before
    )
    close(found, jax.tree.map(lambda p, u: p - 0.1 * u, before, expected))


def _rows_like(leaf, seed):
    rng = np.random.default_rng([seed, *leaf.shape])
    return jnp.asarray(rng.normal(size=(K, *leaf.shape)), leaf.dtype)


class Tower(linen.Module):
    @linen.compact
    def __call__(self, inputs):
        return linen.Dense(1)(nnx.relu(linen.Dense(3)(inputs)))[:, 0]


@functools.cache
def linen_problem():
    """Params, and three groups' losses under a rematerialised Linen model."""
    rng = np.random.default_rng(0)
    cells = fairjax.partition({"group": rng.integers(0, K, 60).astype(str)})
    inputs = rng.normal(size=(60, 4)).astype(np.float32)
    batch = {
        "inputs": jnp.asarray(inputs),
        "target": jnp.asarray(inputs @ [1.0, -1, 0.5, 0] + rng.normal(size=60)),
        "cells": jnp.asarray(rng.integers(0, K, 60), jnp.int32),
    }
    batch["target"] = batch["target"].astype(jnp.float32)
    model = Tower()
    params = model.init(jax.random.key(0), batch["inputs"])
    apply = jax.checkpoint(model.apply)

    def statistics(params, batch):
        return {"loss": (apply(params, batch["inputs"]) - batch["target"]) ** 2}

    objectives = fairjax.cell_objectives(
        statistics, cells, group_losses.group_risks(cells, "group")
    )
    return params, batch, jax.jit(fairjax.value_and_jacobian(objectives))


@rule
def linen_under_jit_with_checkpoint_and_donation(case):
    """A model that rematerialises; a compiled step whose reconciler does too.

    The step's parameters and state are donated.
    """
    params, batch, differentiate = linen_problem()
    values, rows = differentiate(params, batch)
    transform = optax.chain(case.make(num_objectives=K), MOMENTUM)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, values, rows):
        run = jax.checkpoint(
            lambda rows: transform.update(rows, state, params, losses=values)
        )
        updates, state = run(rows)
        return optax.apply_updates(params, updates), state

    state = transform.init(params)
    old = jax.tree.leaves(state)
    expected, after = transform.update(rows, state, params, losses=values)
    same_kind(state, after)
    expected = optax.apply_updates(params, expected)
    found, state = step(jax.tree.map(jnp.copy, params), state, values, rows)
    same_kind(state, after)
    assert any(leaf.is_deleted() for leaf in old)
    close(found, expected, rtol=1e-3, atol=1e-4)
    found, state = step(found, state, values, rows)
    same_kind(state, after)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


@method_rule
def states_share_no_buffers(case):
    """They could not be donated otherwise."""
    start = case.make(num_objectives=K).init(PARAMS)
    for state in start, alone(case)[1]:
        leaves = [leaf for leaf in jax.tree.leaves(state) if leaf.size]
        assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


@jax.tree_util.register_dataclass
@dataclass
class Tree:
    """A module as Equinox has them: a tree with static fields, and with gaps."""

    weight: Any
    layers: list[Any]
    bias: Any = None
    name: str = field(default="model", metadata={"static": True})


def as_module(tree):
    return Tree(tree["head"], [tree["trunk"]["b"], (tree["trunk"]["w"],)])


@rule
def modules_that_are_trees(case):
    make = functools.partial(case.make, num_objectives=K)
    found, state = update(make(), as_module(ROWS), params=as_module(PARAMS))
    assert isinstance(found, Tree)
    assert (found.bias, found.name) == (None, "model")
    close(found, as_module(plain(case)), rtol=2e-3, atol=2e-4)
    same_kind(make().init(as_module(PARAMS)), state)


# Numbers, loops and devices.


@method_rule
def bfloat16_parameters(case):
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    rows = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), ROWS)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), rows)
    transform = case.make(num_objectives=K)
    found, state = update(transform, rows, params=params)
    expected, other = update(transform, wide)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.bfloat16)}
    to_bfloat16 = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), expected)
    as_float = functools.partial(jax.tree.map, lambda leaf: leaf.astype(jnp.float32))
    close(as_float(found), as_float(to_bfloat16), rtol=1e-2, atol=1e-3)
    same_kind(state, other)


@method_rule
def float64(case):
    with jax.enable_x64(True):
        widen = functools.partial(jax.tree.map, lambda leaf: leaf.astype(jnp.float64))
        params, rows = widen(PARAMS), widen(ROWS)
        extra = {"params": params, "losses": LOSSES.astype(jnp.float64)}
        transform = case.make(num_objectives=K)
        start = transform.init(params)
        run = jax.jit(functools.partial(update, transform))
        run = run if is_run(case) else run.eval_shape
        found, state = run(rows, state=start, **extra)
        again, after = run(rows, state=state, **extra)
        same_kind(start, state)
        same_kind(state, after)
        kinds = {leaf.dtype for leaf in jax.tree.leaves((found, again))}
        assert kinds == {jnp.dtype(jnp.float64)}
    if is_run(case) and "key" not in inspect.signature(case.make).parameters:
        # Draws are others in float64.
        close(found, plain(case), rtol=2e-3, atol=2e-4)


@method_rule
def scans_mapped_over_seeds_and_settings(case):
    """A scan of updates, mapped over keys and a setting, equals single updates."""
    has_key = "key" in inspect.signature(case.make).parameters
    name, *values = case.setting or ("", 0.0, 0.0)

    def make(key, value):
        settings = {"key": key} if has_key else {}
        settings |= {name: value} if name else {}
        return case.make(num_objectives=K, **settings)

    def run(key, value):
        transform = make(key, value)

        def one(state, scale):
            found, state = update(transform, scaled(ROWS, scale), state)
            return state, found

        return jax.lax.scan(one, transform.init(PARAMS), jnp.array([1.0, 2.0]))

    keys, values = jnp.array([0, 1]), jnp.array(values)
    if not is_run(case):
        # Traces the carry, which keeps its kind.
        jax.eval_shape(jax.vmap(run), keys, values)
        return
    _, found = jax.jit(jax.vmap(run))(keys, values)
    for number, (key, value) in enumerate(zip(keys, values, strict=True)):
        transform = make(key, value)
        state = transform.init(PARAMS)
        for place, scale in enumerate((1.0, 2.0)):
            expected, state = update(transform, scaled(ROWS, scale), state)
            ours = jax.tree.map(lambda leaf, n=number, p=place: leaf[n, p], found)
            close(ours, expected, rtol=1e-3, atol=1e-4)


@functools.cache
def wide_tree():
    """Rows and parameters that four by two devices divide, and their specs."""
    params = {"w": jnp.zeros((8, 4)), "b": jnp.zeros(4), "s": jnp.zeros(())}
    rows = jax.tree.map(lambda leaf: _rows_like(leaf, 7), params)
    specs = {"w": P("data", "model"), "b": P("model"), "s": P()}
    return params, rows, specs


def sharded_update(case, types):
    params, rows, specs = wide_tree()
    transform = optax.chain(case.make(num_objectives=K), MOMENTUM)
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(types,) * 2)
    with jax.set_mesh(mesh):
        put = functools.partial(
            jax.tree.map, lambda leaf, spec: jax.device_put(leaf, _on(mesh, spec))
        )
        on = put(params, specs)
        row_specs = {name: P(None, *spec) for name, spec in specs.items()}
        given = put(rows, row_specs), transform.init(on), on
        run = jax.jit(functools.partial(update, transform))
        if types is AxisType.Explicit:
            # Such a mesh's shardings are in the types, which tracing finds.
            found, _ = run.eval_shape(*given)
            assert {name: leaf.sharding.spec for name, leaf in found.items()} == specs
            if not is_run(case):
                return
        found, _ = run(*given)
        for name, spec in specs.items():
            assert found[name].sharding.is_equivalent_to(
                _on(mesh, spec), found[name].ndim
            )
        found = jax.device_get(found)
    expected, _ = update(transform, rows, params=params)
    close(found, expected, rtol=1e-3, atol=1e-4)


def _on(mesh, spec):
    return NamedSharding(mesh, spec)


@rule
def sharded_fully_auto(case):
    sharded_update(case, AxisType.Auto)


@method_rule
def sharded_fully_explicit(case):
    sharded_update(case, AxisType.Explicit)


# What is wrong is said at once, with the leaf and its shape.


@quick_rule
def bad_gradients(case):
    transform = case.make(num_objectives=K)
    with pytest.raises(ValueError, match=r"\['b'\] has shape \(2,\)"):
        update(transform, dict(ROWS, trunk={"w": ROWS["trunk"]["w"], "b": jnp.ones(2)}))
    many = {f"l{number}": jnp.ones((K, 2)) for number in range(100)}
    with pytest.raises(ValueError, match=r"\['l99'\] has shape \(2,\)"):
        update(transform, many | {"l99": jnp.ones(2)}, params=None)
    with pytest.raises(
        ValueError, match=r"leaf for parameter \['head'\] of shape \(2,\)"
    ):
        update(transform, {"trunk": ROWS["trunk"]})
    two = jax.tree.map(lambda leaf: leaf[:2], ROWS)
    with pytest.raises(ValueError, match=r"for 3 objectives; .* 2 rows: leaf \['head'"):
        jax.eval_shape(functools.partial(update, transform), two)
    with pytest.raises(ValueError, match=r"losses has shape \(2,\)"):
        update(transform, losses=LOSSES[:2])
    unstacked = {"w": jnp.ones((K, 2))}
    message = r"leaf \['w'\] has shape \(3, 2\), and its parameter \(3, 2\)"
    with pytest.raises(ValueError, match=message):
        update(transform, unstacked, params=unstacked)


def rules_and_cases():
    for which in RULES:
        for name, case in CASES.items():
            every = which in QUICK_RULES or name in QUICK_CASES
            kinds = ONLY.get(which, CASES if which in METHOD_RULES else KINDS)
            if every or (not case.variant and name in kinds):
                if which in QUICK_RULES:
                    quick = name in (
                        QUICK_CASES if which in OWN_PROGRAMS else QUICK_KINDS
                    )
                else:
                    quick = name in QUICK_CASES and which not in DEAR_RULES
                marks = () if quick else pytest.mark.slow
                yield pytest.param(which, name, marks=marks)


@pytest.mark.parametrize(("which", "name"), list(rules_and_cases()))
def test_every_transformation_keeps_every_rule(which, name):
    RULES[which](CASES[name])


def test_every_public_transformation_is_in_the_table():
    """Under its own name, so that none is forgotten."""
    public = {
        name
        for name in methods.__all__
        if inspect.isfunction(inspect.unwrap(getattr(fairjax, name)))
    }
    made = {
        name
        for name, value in vars(fairjax).items()
        if inspect.isfunction(inspect.unwrap(value))
        and inspect.signature(value).return_annotation
        is optax.GradientTransformationExtraArgs
    }
    assert public == made - {"accumulate", "per_label", "per_objective", "reconcile"}
    assert len(public) > 20
    assert set(DEPRECATED) <= public
    assert set(DEPRECATED.values()) <= public
    public -= set(DEPRECATED)
    assert public <= set(CASES)
    assert public >= QUICK_CASES
    assert set(CASES) >= KINDS
    assert set(RULES) >= set(ONLY) | QUICK_RULES | DEAR_RULES
    assert OWN_PROGRAMS <= QUICK_RULES
    assert QUICK_CASES <= QUICK_KINDS
    assert set(CASES) >= set().union(*ONLY.values())
    for name in public:
        assert not CASES[name].variant
        made = CASES[name].make
        assert getattr(made, "func", made) is getattr(fairjax, name)
