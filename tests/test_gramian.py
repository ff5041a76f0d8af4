"""Gram matrix and combination of rows, against NumPy in float64, on any mesh."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import fairjax

RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.normal(size=shape).astype(np.float32)


TREES = {
    "array": draw(3, 5),
    "dict": {"w": draw(3, 4, 2), "b": draw(3, 2)},
    "list": [draw(3, 4), draw(3), draw(3, 1, 2, 3)],
    "nested": {"a": [draw(3, 2), (draw(3), {"c": draw(3, 2, 2)})]},
    "with an empty leaf": [draw(3, 0), draw(3, 4)],
}


def flat(tree):
    leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(tree)]
    return np.concatenate([x.reshape(len(x), -1) for x in leaves], axis=1)


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_gramian_equals_numpy(tree):
    rows = flat(tree)
    for jacobian in (tree, jax.tree.map(jnp.asarray, tree)):
        found = fairjax.gramian(jacobian)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, rows @ rows.T, rtol=1e-5, atol=1e-5)


def test_gramian_of_complex_rows():
    with pytest.raises(ValueError, match="gradients must be real; got complex"):
        fairjax.gramian(jnp.array([[1 + 1j, 0]]))


def test_gramian_of_two_batches_equals_numpy():
    # A leaf that is contracted in blocks on one device, and one that is not.
    one, other = ({"a": draw(3, 4, 2), "b": draw(3, 20_000)} for _ in range(2))
    expected = flat(one) @ flat(other).T
    np.testing.assert_allclose(fairjax.gramian(one, other), expected, atol=2e-3)
    for wrong in (other["a"], {"a": draw(3, 5), "b": other["b"]}):
        with pytest.raises(ValueError, match="must have the first ones' shapes"):
            fairjax.gramian(one, wrong)


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_combine_equals_numpy(tree, shape):
    weights = draw(*shape)
    found = fairjax.combine(jnp.asarray(weights), tree)
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    for leaf, row in zip(jax.tree.leaves(found), jax.tree.leaves(tree), strict=True):
        expected = np.tensordot(weights.astype(np.float64), row, axes=1)
        assert leaf.dtype == row.dtype
        np.testing.assert_allclose(leaf, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_accumulated_in_float32(dtype):
    # bfloat16 stops counting at 256, float16 overflows at 65,504.
    rows = jnp.stack([jnp.full(4096, 8.0), jnp.ones(4096)]).astype(dtype)
    found = fairjax.gramian({"a": rows, "b": rows})
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, 8192 * np.array([[64, 8], [8, 1]]))
    total = fairjax.combine(jnp.array([1.0, -7.5]), rows)
    assert total.dtype == dtype
    np.testing.assert_array_equal(total.astype(jnp.float32), 0.5)


def test_half_precision_rounds_the_sum_once():
    # 256 + 1 + 1: rounding after each row in bfloat16 would leave 256.
    rows = jnp.array([[256.0], [1.0], [1.0]], jnp.bfloat16)
    total = fairjax.combine(jnp.ones(3), rows)
    assert float(total[0]) == 258


def test_mixed_dtypes_add_up_in_float32():
    tree = {"a": draw(3, 4), "b": jnp.asarray(draw(3, 6), jnp.bfloat16)}
    rows = flat(tree)
    np.testing.assert_allclose(fairjax.gramian(tree), rows @ rows.T, rtol=1e-5)


def test_float64_stays_float64():
    with jax.enable_x64():
        rows = jnp.asarray(RNG.normal(size=(3, 50)))
        found = fairjax.gramian(rows)
        total = fairjax.combine(jnp.arange(3.0), rows)
        assert found.dtype == total.dtype == jnp.float64
        np.testing.assert_allclose(found, np.asarray(rows) @ np.asarray(rows).T, 1e-14)
        np.testing.assert_allclose(total, np.arange(3) @ np.asarray(rows), 1e-13)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_row_of_weight_zero_does_no_harm(bad):
    rows = draw(3, 4)
    broken = rows.copy()
    broken[1, 2] = bad
    weights = jnp.array([2.0, 0.0, -1.0])
    expected = np.asarray(fairjax.combine(weights, rows))
    np.testing.assert_array_equal(fairjax.combine(weights, broken), expected)
    gram = np.asarray(fairjax.gramian(broken))
    assert not np.isfinite(gram[1]).any()
    keep = np.ix_([0, 2], [0, 2])
    np.testing.assert_array_equal(gram[keep], fairjax.gramian(rows)[keep])


@pytest.mark.parametrize(
    "tree",
    [{}, [np.zeros((2, 3)), np.zeros((3, 3))], np.float32(1), [np.zeros(2), 0.0]],
    ids=["no leaves", "different axes", "scalar", "one scalar"],
)
def test_stack_without_a_common_axis(tree):
    with pytest.raises(ValueError, match="one leading axis of the same length"):
        fairjax.gramian(tree)
    with pytest.raises(ValueError, match="one leading axis of the same length"):
        fairjax.combine(jnp.ones(2), tree)


def test_weights_of_another_length():
    with pytest.raises(ValueError, match=r"weights of shape \(2,\) do not fit 3 rows"):
        fairjax.combine(jnp.ones(2), draw(3, 4))


SPECS = {
    "replicated": {"w": P(), "b": P()},
    "fsdp": {"w": P("data"), "b": P()},
    "tensor": {"w": P(None, "model"), "b": P("model")},
    "both": {"w": P("data", "model"), "b": P("model")},
}


@functools.cache
def mesh(kind):
    types = (AxisType.Auto if kind == "auto" else AxisType.Explicit,) * 2
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=types)


def spread(tree, specs, over, leading=1):
    """Puts stacked rows on a mesh, each row sharded as its parameter."""
    return {
        name: jax.device_put(
            leaf, NamedSharding(over, P(*(None,) * leading, *specs[name]))
        )
        for name, leaf in tree.items()
    }


@pytest.mark.parametrize(
    "specs",
    [
        pytest.param(specs, id=name, marks=() if name == "both" else pytest.mark.slow)
        for name, specs in SPECS.items()
    ],
)
@pytest.mark.parametrize(
    "kind", [pytest.param("auto", marks=pytest.mark.slow), "explicit"]
)
def test_same_on_a_mesh(kind, specs):
    tree = {"w": draw(3, 8, 6), "b": draw(3, 6)}
    weights = jnp.array([1.0, 0.0, -2.0])
    gram, total = fairjax.gramian(tree), fairjax.combine(weights, tree)
    with jax.set_mesh(mesh(kind)):
        sharded = spread(tree, specs, mesh(kind))
        found = jax.jit(fairjax.gramian)(sharded)
        combined = jax.jit(fairjax.combine)(weights, sharded)
        assert found.sharding.is_fully_replicated
        np.testing.assert_allclose(found, gram, rtol=1e-5, atol=1e-5)
        for name, leaf in combined.items():
            wanted = NamedSharding(mesh(kind), specs[name])
            assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim), name
            np.testing.assert_allclose(leaf, total[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["auto", "explicit"])
def test_rows_spread_over_devices(kind):
    rows = draw(4, 6, 5)
    weights = jnp.array([1.0, 0.0, -2.0, 0.5])
    gram, total = fairjax.gramian(rows), fairjax.combine(weights, rows)
    with jax.set_mesh(mesh(kind)):
        sharded = jax.device_put(rows, NamedSharding(mesh(kind), P("data")))
        np.testing.assert_allclose(jax.jit(fairjax.gramian)(sharded), gram, rtol=1e-5)
        combined = jax.jit(fairjax.combine)(weights, sharded)
        np.testing.assert_allclose(combined, total, rtol=1e-5, atol=1e-6)


def test_long_rows_are_not_copied():
    rows = {"w": draw(21, 12, 8192), "b": draw(21, 5, 3281)}
    rows["w"][4, 1, 7] = np.nan
    weights = draw(21)
    weights[[4, 20]] = 0
    # In a manual region, the arrays are known to be this device's own.
    alone = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])

    def compiled(function, *args):
        local = jax.shard_map(function, mesh=alone, in_specs=P(), out_specs=P())
        return jax.jit(local).lower(*args).compile()

    for function, args in ((fairjax.gramian, ()), (fairjax.combine, (weights,))):
        program = compiled(function, *args, rows)
        size = sum(leaf.nbytes for leaf in rows.values())
        assert program.memory_analysis().temp_size_in_bytes < size / 8
        found = program(*args, rows)
        if function is fairjax.gramian:
            keep = np.delete(np.arange(21), 4)
            exact = flat(rows)[keep]
            found = np.asarray(found)
            assert np.isnan(found[4]).all()
            assert np.isnan(found[:, 4]).all()
            np.testing.assert_allclose(
                found[np.ix_(keep, keep)], exact @ exact.T, rtol=1e-5, atol=0.1
            )
        else:
            for name, leaf in rows.items():
                exact = np.tensordot(weights.astype(float), np.nan_to_num(leaf), 1)
                np.testing.assert_allclose(found[name], exact, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_vmap_on_an_explicit_mesh():
    trees = {"w": draw(4, 3, 8, 6), "b": draw(4, 3, 6)}
    weights = jnp.asarray(draw(4, 3))
    grams = jax.vmap(fairjax.gramian)(trees)
    totals = jax.vmap(fairjax.combine)(weights, trees)
    over = mesh("explicit")
    with jax.set_mesh(over):
        sharded = spread(trees, SPECS["both"], over, leading=2)
        np.testing.assert_allclose(
            jax.jit(jax.vmap(fairjax.gramian))(sharded), grams, rtol=1e-5, atol=1e-5
        )
        found = jax.jit(jax.vmap(fairjax.combine))(weights, sharded)
        for name, leaf in found.items():
            wanted = NamedSharding(over, P(None, *SPECS["both"][name]))
            assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim), name
            np.testing.assert_allclose(leaf, totals[name], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@hypothesis.given(st.integers(0, 2**16))
def test_combination_has_the_length_that_the_gramian_says(seed):
    rng = np.random.default_rng(seed)
    tree = [rng.normal(size=(3, 4)), rng.normal(size=(3,))]
    tree = [jnp.asarray(x, jnp.float32) for x in tree]
    weights = jnp.asarray(rng.normal(size=3), jnp.float32)
    total = fairjax.combine(weights, tree)
    square = sum(float(jnp.vdot(x, x)) for x in total)
    gram = fairjax.gramian(tree)
    np.testing.assert_allclose(weights @ gram @ weights, square, rtol=1e-3, atol=1e-4)
