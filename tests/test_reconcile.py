"""Reconcilers as optax transformations: values, exclusions, every way to run them."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fairjax
from fairjax import steps

ROWS = np.random.default_rng(3).normal(size=(3, 8)).astype(np.float32)
ROWS[1] -= ROWS[0]  # So that there is a conflict to settle.


def balanced(*, num_objectives, strength=0.7, key=0):
    return fairjax.reconcile(
        steps.balance_magnitudes(reference=0, strength=strength),
        steps.project_conflicts(key=key),
        steps.combine("mean"),
        num_objectives=num_objectives,
    )


RECONCILERS = {
    "pcgrad": fairjax.pcgrad,
    "pcgrad always": functools.partial(fairjax.pcgrad, condition="always"),
    "pcgrad shared order": functools.partial(fairjax.pcgrad, order="shared"),
    "fairgrad with strength": functools.partial(fairjax.fairgrad, strength=0.5),
    "balanced": balanced,
}
# Two of them compile in the quick lane.
each = pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            make,
            id=name,
            marks=() if name in ("pcgrad", "balanced") else pytest.mark.slow,
        )
        for name, make in RECONCILERS.items()
    ],
)


def once(transform, rows, **extra):
    """The first update of a transformation."""
    params = jax.tree.map(lambda leaf: leaf[0], rows)
    return transform.update(rows, transform.init(params), params, **extra)


@functools.cache
def compiled(make, size):
    return jax.jit(functools.partial(once, make(num_objectives=size)))


def reconciled(make, rows, mask=None, losses=None):
    """The same, compiled once for each reconciler and number of rows."""
    size = len(jax.tree.leaves(rows)[0])
    mask = jnp.ones(size, bool) if mask is None else jnp.array(mask)
    losses = jnp.ones(size) if losses is None else jnp.array(losses)
    return compiled(make, size)(rows, mask=mask, losses=losses)


def loss_balanced(num_objectives):
    return fairjax.reconcile(
        steps.balance_magnitudes("loss_ratio"),
        steps.combine("sum"),
        num_objectives=num_objectives,
    )


class TestValues:
    @pytest.mark.parametrize(
        ("rows", "options", "expected"),
        [
            ([[-4, 1, 1], [6, 1, 1]], {}, [0.5848, 3.8012, 3.8012]),
            ([[-4, 1, 1], [6, 1, 1]], {"reduction": "mean"}, [0.2924, 1.9006, 1.9006]),
            ([[1, 0], [-1, -1]], {}, [0.5, -1.5]),
            ([[-1, 1], [1, 0]], {}, [0.5, 1.5]),
            # (.5, −.5) + (0, 1).
            ([[1, 0], [1, 1]], {"condition": "always"}, [0.5, 0.5]),
            # Half of 2 is added to each square: (2/3, −1/3) + (−1/2, −1).
            ([[1, 0], [-1, -1]], {"epsilon": 0.5}, [1 / 6, -4 / 3]),
            ([[1, 0], [-1, -1]], {"order": [1, 0]}, [0.5, -1.5]),
            ([[1, 0], [-1, -1]], {"order": jnp.array([[1, 0]] * 2)}, [0.5, -1.5]),
        ],
    )
    def test_pcgrad(self, rows, options, expected):
        rows = jnp.array(rows, jnp.float32)
        for make in (fairjax.pcgrad, fairjax.fairgrad):
            update, _ = once(make(num_objectives=2, **options), rows)
            np.testing.assert_allclose(update, expected, atol=5e-5)

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({}, [2 + 0, 10]),
            ({"strength": 0.5}, [2, 1]),
            ({"strength": 3.0}, [2, 6]),
            ({"strength": 0.0}, [2, 0]),
            ({"strength": 3.0, "limit": 0.4}, [2, 4]),
            ({"strength": 0.5, "reduction": "mean"}, [1, 0.5]),
        ],
    )
    def test_fairgrad_strength(self, options, expected):
        transform = fairjax.fairgrad(num_objectives=2, **options)
        update, _ = once(transform, jnp.array([[2.0, 0.0], [0.0, 10.0]]))
        np.testing.assert_allclose(update, expected, rtol=1e-6)

    def test_diagnostics(self):
        rows = jnp.array([[3.0, 0.0], [-1.0, 1.0], [0.0, 2.0]])
        transform = optax.chain(fairjax.pcgrad(num_objectives=3), optax.sgd(0.1))
        _, state = jax.jit(functools.partial(once, transform))(rows)
        get = functools.partial(optax.tree.get, state)
        half = 1 / np.sqrt(2)
        cosines = [[1, -half, 0], [-half, 1, half], [0, half, 1]]
        np.testing.assert_allclose(get("cosines"), cosines, atol=1e-6)
        np.testing.assert_allclose(get("conflict_share"), 1 / 3)
        np.testing.assert_allclose(get("norms"), [3, np.sqrt(2), 2], rtol=1e-6)
        # Row 0 takes 3/2 of row 1; row 1 takes 1/3 of row 0.
        np.testing.assert_allclose(get("weights"), [4 / 3, 5 / 2, 1], rtol=1e-6)
        np.testing.assert_array_equal(get("nonfinite"), [0, 0, 0])
        np.testing.assert_array_equal(get("zero"), [0, 0, 0])

    @each
    def test_one_objective_is_left_as_it_is(self, make):
        update, state = reconciled(make, ROWS[:1])
        np.testing.assert_allclose(update, ROWS[0], rtol=1e-6)
        assert float(state.conflict_share) == 0

    @each
    def test_update_is_the_weighted_sum_of_the_rows(self, make):
        update, state = reconciled(make, ROWS)
        np.testing.assert_allclose(update, state.weights @ ROWS, atol=1e-5)

    @each
    def test_common_scale(self, make):
        one, _ = reconciled(make, ROWS)
        for scale in (1e-9, 1e-3, 1e9):
            other, _ = reconciled(make, scale * ROWS)
            np.testing.assert_allclose(other, scale * one, rtol=1e-4)


in_order = functools.partial(fairjax.pcgrad, order=(0, 1, 2))
renamed = functools.partial(fairjax.pcgrad, order=(1, 2, 0))
whole_numbers = hnp.arrays(np.float32, (3, 4), elements=st.integers(-6, 6))


@hypothesis.given(whole_numbers)
def test_no_conflict_leaves_the_sum(rows):
    rows = np.abs(rows)
    update, _ = reconciled(in_order, rows)
    np.testing.assert_array_equal(update, rows.sum(axis=0))


@hypothesis.given(whole_numbers)
def test_renamed_objectives_give_the_same_update(rows):
    # New row i is old row (2, 0, 1)[i]: the old order 0, 1, 2 is 1, 2, 0 there.
    one, _ = reconciled(in_order, rows)
    other, _ = reconciled(renamed, rows[[2, 0, 1]])
    np.testing.assert_allclose(one, other, atol=1e-3)


class TestExclusion:
    BAD = (np.nan, np.inf, -np.inf)

    @each
    @pytest.mark.parametrize("bad", BAD)
    def test_row_that_is_not_finite(self, make, bad):
        """The other rows do as if it were masked, to the bit."""
        broken = ROWS.copy()
        broken[1, 3] = bad
        update, state = reconciled(make, broken)
        expected, masked = reconciled(make, ROWS, mask=[True, False, True])
        assert np.isfinite(update).all()
        np.testing.assert_array_equal(update, expected)
        np.testing.assert_array_equal(state.nonfinite, [0, 1, 0])
        np.testing.assert_array_equal(state.weights, masked.weights)
        np.testing.assert_array_equal(state.cosines[1], [0, 0, 0])
        np.testing.assert_array_equal(masked.nonfinite, [0, 0, 0])
        assert np.isfinite(state.cosines).all()
        assert not np.isfinite(state.norms[1])

    @pytest.mark.slow
    def test_one_bad_leaf_excludes_the_whole_row(self):
        rows = {"w": ROWS, "b": jnp.ones((3, 2)).at[1, 0].set(jnp.nan)}
        update, state = reconciled(fairjax.pcgrad, rows)
        rest = jax.tree.map(lambda leaf: leaf[jnp.array([0, 2])], rows)
        expected, _ = reconciled(fairjax.pcgrad, rest)
        assert float(state.weights[1]) == 0
        for name in rows:
            np.testing.assert_allclose(update[name], expected[name], rtol=1e-5)

    @each
    def test_without_the_objective_at_all(self, make):
        """Excluding equals running with the others alone, where no order is drawn."""
        rows = ROWS.copy()
        rows[2] = np.nan
        update, _ = reconciled(make, rows)
        expected, _ = reconciled(make, ROWS[:2])
        np.testing.assert_allclose(update, expected, rtol=1e-5, atol=1e-6)

    @each
    def test_zero_row(self, make):
        rows = ROWS.copy()
        rows[2] = 0
        update, state = reconciled(make, rows)
        expected, _ = reconciled(make, ROWS[:2])
        np.testing.assert_allclose(update, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(state.zero, [0, 0, 1])
        np.testing.assert_array_equal(state.nonfinite, [0, 0, 0])
        assert float(state.weights[2]) == 0

    @pytest.mark.parametrize("bad", BAD)
    def test_loss_that_is_not_finite(self, bad):
        update, state = reconciled(fairjax.pcgrad, ROWS, losses=[1.0, 2.0, bad])
        expected, _ = reconciled(fairjax.pcgrad, ROWS, mask=[True, True, False])
        np.testing.assert_array_equal(update, expected)
        np.testing.assert_array_equal(state.nonfinite, [0, 0, 1])

    @each
    def test_nothing_left(self, make):
        rows = jnp.array([[jnp.nan] * 8, [0.0] * 8, [1.0] * 8])
        update, state = reconciled(make, rows, mask=[True, True, False])
        np.testing.assert_array_equal(update, np.zeros(8))
        np.testing.assert_array_equal(state.weights, [0, 0, 0])
        np.testing.assert_array_equal(state.nonfinite, [1, 0, 0])
        np.testing.assert_array_equal(state.zero, [0, 1, 0])

    def test_masked_objective_is_not_counted(self):
        rows = jnp.array([[jnp.nan] * 8, [0.0] * 8, [1.0] * 8])
        update, state = reconciled(fairjax.pcgrad, rows, mask=[False, False, True])
        np.testing.assert_array_equal(update, np.ones(8))
        np.testing.assert_array_equal(state.nonfinite + state.zero, [0, 0, 0])

    @pytest.mark.parametrize("make", [fairjax.pcgrad, fairjax.graddrop])
    @pytest.mark.parametrize("largest", [30_000.0, 40_000.0])
    def test_update_beyond_float16(self, make, largest):
        """Twice 40,000 is above 65,504: as a row that overflows, but for all rows."""
        rows = jnp.array([[largest, 1.0], [largest, 2.0]], jnp.float16)
        transform = make(num_objectives=2)
        update, state = transform.update(rows, transform.init(jnp.zeros(2)))
        held = largest < 65_504 / 2
        np.testing.assert_array_equal(update, [2 * largest, 3.0] if held else [0, 0])
        np.testing.assert_array_equal(state.nonfinite, [0, 0] if held else [1, 1])
        assert update.dtype == jnp.float16

    def test_mean_of_large_float16_rows_is_held(self):
        rows = jnp.array([[40_000.0], [60_000.0]], jnp.float16)
        transform = fairjax.scalarize(num_objectives=2, reduction="mean")
        update, state = transform.update(rows, transform.init(jnp.zeros(1)))
        np.testing.assert_array_equal(update, jnp.float16(50_000))
        np.testing.assert_array_equal(state.nonfinite, [0, 0])

    def test_counts_add_up(self):
        transform = fairjax.pcgrad(num_objectives=2)
        state = transform.init(jnp.zeros(2))
        for first in (jnp.nan, 1.0, jnp.inf, 0.0):
            rows = jnp.array([[first, 0.0], [1.0, 1.0]])
            _, state = transform.update(rows, state)
        np.testing.assert_array_equal(state.nonfinite, [2, 0])
        np.testing.assert_array_equal(state.zero, [1, 0])

    def test_losses_reach_the_steps(self):
        transform = loss_balanced(2)
        rows = jnp.eye(2)
        _, state = once(transform, rows, losses=jnp.array([2.0, 4.0]))
        update, _ = transform.update(rows, state, losses=jnp.array([1.0, 4.0]))
        np.testing.assert_allclose(update, [2 / 3, 4 / 3], rtol=1e-6)

    @pytest.mark.slow
    def test_unknown_extra_arguments_are_passed_over(self):
        transform = optax.chain(
            fairjax.pcgrad(num_objectives=3), optax.clip_by_global_norm(1.0)
        )
        one, _ = once(transform, jnp.asarray(ROWS))
        other, _ = once(transform, jnp.asarray(ROWS), value=3.0, temperature=None)
        np.testing.assert_array_equal(one, other)


def as_dict(rows):
    return {"w": rows[:, :6].reshape(-1, 2, 3), "b": rows[:, 6:]}


SHAPES = {
    "dict": as_dict,
    "list": lambda rows: [rows[:, :3], rows[:, 3], rows[:, 4:]],
    "tuple": lambda rows: (rows[:, :5], rows[:, 5:]),
    "nested": lambda rows: {"a": [rows[:, :2], (rows[:, 2], {"c": rows[:, 3:]})]},
}


class TestEveryWayToRun:
    @pytest.mark.parametrize(
        "shape",
        [
            pytest.param(s, id=name, marks=() if name == "nested" else pytest.mark.slow)
            for name, s in SHAPES.items()
        ],
    )
    def test_any_tree(self, shape):
        expected, _ = reconciled(balanced, ROWS)
        update, _ = reconciled(balanced, shape(ROWS))
        wanted = jax.tree.map(lambda leaf: leaf[0], shape(expected[None]))
        assert jax.tree.structure(update) == jax.tree.structure(wanted)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            update,
            wanted,
        )

    @pytest.mark.slow
    def test_vmap_over_hyper_parameters(self):
        def run(strength, epsilon, limit):
            transform = fairjax.fairgrad(
                num_objectives=3,
                strength=strength,
                limit=limit,
                epsilon=epsilon,
                order=(0, 1, 2),
            )
            return once(transform, jnp.asarray(ROWS))[0]

        settings = jnp.array([[0.3, 0.0, 9.0], [1.0, 0.1, 0.5], [2.0, 0.2, 9.0]])
        found = jax.jit(jax.vmap(run))(*settings.T)
        for row, options in zip(found, settings.tolist(), strict=True):
            np.testing.assert_allclose(row, run(*options), rtol=1e-5, atol=1e-6)
        assert len(np.unique(np.asarray(found).round(4), axis=0)) == 3

    def test_one_trace_for_equal_shapes(self):
        traces = []
        transform = optax.chain(loss_balanced(3), optax.adamw(0.1))

        @jax.jit
        def update(rows, state, params, losses, mask):
            traces.append(None)
            updates, state = transform.update(
                rows, state, params, losses=losses, mask=mask
            )
            return optax.apply_updates(params, updates), state

        params = jnp.zeros(8)
        state = transform.init(params)
        for step in range(4):
            rows = jnp.asarray(ROWS).at[step % 3].set(jnp.nan)
            mask = jnp.arange(3) != step
            params, state = update(rows, state, params, jnp.ones(3) * step, mask)
        assert len(traces) == 1
        assert np.isfinite(params).all()

    @each
    def test_state_from_abstract_params(self, make):
        transform = optax.chain(
            fairjax.per_objective(optax.scale_by_adam(), num_objectives=3),
            make(num_objectives=3),
            optax.adamw(0.1),
        )
        params = jax.tree.map(lambda leaf: leaf[0], as_dict(ROWS))
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params
        )
        found = jax.eval_shape(transform.init, abstract)
        for a, b in zip(
            jax.tree.leaves(found),
            jax.tree.leaves(transform.init(params)),
            strict=True,
        ):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)


class TestOptax:
    """A reconciler stands wherever an optax transformation does."""

    def test_chain_with_clipping_and_adamw(self):
        params = jnp.ones(8)
        after = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(0.1))
        transform = optax.chain(fairjax.pcgrad(num_objectives=3), after)
        found, _ = jax.jit(transform.update)(ROWS, transform.init(params), params)
        row, _ = reconciled(fairjax.pcgrad, ROWS)
        expected, _ = jax.jit(after.update)(row, after.init(params), params)
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_injected_strength(self):
        schedule = optax.piecewise_constant_schedule(1.0, {1: 0.5})
        transform = optax.inject_hyperparams(
            fairjax.fairgrad, static_args=("num_objectives",)
        )(num_objectives=2, strength=schedule)
        rows, params = jnp.array([[2.0, 0.0], [0.0, 10.0]]), jnp.zeros(2)
        state = transform.init(params)
        for expected in ([2, 2], [2, 1], [2, 1]):
            update, state = jax.jit(transform.update)(rows, state, params)
            np.testing.assert_allclose(update, expected, rtol=1e-6)
        np.testing.assert_allclose(state.hyperparams["strength"], 0.5)

    def test_partition_of_trunk_and_heads(self):
        """Heads see their own objectives only, so their rows are summed."""
        rows = {
            "trunk": jnp.array([[1.0, 0.0], [-1.0, -1.0]]),
            "heads": jnp.array([[3.0, 0.0], [0.0, -2.0]]),
        }
        total = fairjax.reconcile(steps.combine("sum"), num_objectives=2)
        transform = optax.partition(
            {"trunk": fairjax.pcgrad(num_objectives=2), "heads": total},
            {"trunk": "trunk", "heads": "heads"},
        )
        update, _ = jax.jit(functools.partial(once, transform))(rows)
        np.testing.assert_allclose(update["trunk"], [0.5, -1.5])
        np.testing.assert_allclose(update["heads"], [3, -2])

    def test_apply_if_finite_after_the_reconciler(self):
        rows = jnp.array([[1.0, 0.0], [jnp.nan, 1.0]])
        transform = optax.chain(
            fairjax.pcgrad(num_objectives=2),
            optax.apply_if_finite(optax.sgd(1.0), max_consecutive_errors=3),
        )
        update, state = once(transform, rows)
        np.testing.assert_allclose(update, [-1, 0])
        assert int(optax.tree.get(state, "total_notfinite")) == 0
        np.testing.assert_array_equal(optax.tree.get(state, "nonfinite"), [0, 1])

    def test_multi_steps_after_the_reconciler(self):
        transform = optax.chain(
            fairjax.pcgrad(num_objectives=2),
            optax.MultiSteps(
                optax.sgd(1.0), every_k_schedule=2
            ).gradient_transformation(),
        )
        params = jnp.zeros(2)
        state = transform.init(params)
        for rows, expected in (
            ([[1.0, 0.0], [-1.0, -1.0]], [0, 0]),
            ([[-1.0, 1.0], [1.0, 0.0]], [-0.5, 0]),
        ):
            update, state = transform.update(jnp.array(rows), state, params)
            np.testing.assert_allclose(update, expected, atol=1e-6)

    def test_clipping_each_row_is_not_clipping_the_stack(self):
        rows = jnp.array([[3.0, 4.0], [0.3, 0.4]])
        clip = optax.clip_by_global_norm(1.0)
        each = fairjax.per_objective(clip, num_objectives=2)
        each_row, _ = jax.jit(functools.partial(once, each))(rows)
        np.testing.assert_allclose(each_row, [[0.6, 0.8], [0.3, 0.4]], rtol=1e-6)
        stack, _ = jax.jit(functools.partial(once, clip))(rows)
        np.testing.assert_allclose(stack, rows / np.sqrt(25.25), rtol=1e-6)

    def test_per_objective_state(self):
        """Each row has its own moments: as if each were transformed alone."""
        adam = optax.scale_by_adam()
        transform = fairjax.per_objective(adam, num_objectives=3)
        params = jax.tree.map(lambda leaf: leaf[0], as_dict(ROWS))
        state, alone = transform.init(params), [adam.init(params) for _ in range(3)]
        update, update_alone = jax.jit(transform.update), jax.jit(adam.update)
        for scale in (1.0, -2.0):
            rows = as_dict(scale * ROWS)
            found, state = update(rows, state, params, losses=np.ones(3))
            for i in range(3):
                row = jax.tree.map(lambda leaf, i=i: leaf[i], rows)
                expected, alone[i] = update_alone(row, alone[i], params)
                for name in rows:
                    np.testing.assert_allclose(
                        found[name][i], expected[name], rtol=1e-5
                    )


class TestErrors:
    def test_no_steps(self):
        with pytest.raises(ValueError, match="at least one step"):
            fairjax.reconcile(num_objectives=2)

    @pytest.mark.parametrize("number", [0, -1])
    def test_no_objectives(self, number):
        with pytest.raises(ValueError, match=f"at least 1; got {number}"):
            fairjax.pcgrad(num_objectives=number)

    @pytest.mark.parametrize("number", [2, 4])
    def test_another_number_of_rows(self, number):
        transform = fairjax.pcgrad(num_objectives=number)
        message = f"made for {number} objectives; the gradients have 3 rows"
        with pytest.raises(ValueError, match=message):
            once(transform, ROWS)

    @pytest.mark.parametrize("name", ["losses", "mask"])
    def test_losses_and_masks_of_another_number(self, name):
        transform = fairjax.pcgrad(num_objectives=3)
        given = {name: jnp.ones(2, bool if name == "mask" else float)}
        with pytest.raises(ValueError, match=rf"{name} has shape \(2,\); .*\(3,\)"):
            transform.update(ROWS, transform.init(None), **given)

    def test_per_objective_of_another_number(self):
        each = fairjax.per_objective(optax.scale(1.0), num_objectives=2)
        message = "per_objective was made for 2 objectives; the gradients have 3 rows"
        with pytest.raises(ValueError, match=message):
            each.update(ROWS, each.init(jnp.zeros(2)))

    def test_a_limit_of_nothing(self):
        with pytest.raises(ValueError, match="give a strength too"):
            fairjax.fairgrad(num_objectives=2, limit=3.0)

    def test_gradients_that_are_not_stacked(self):
        transform = fairjax.pcgrad(num_objectives=3)
        rows = {"a": jnp.ones((3, 2)), "b": jnp.ones(2)}
        with pytest.raises(ValueError, match="one leading axis of the same length"):
            transform.update(rows, transform.init(None))

    def test_steps_that_do_not_end_in_one_row(self):
        transform = fairjax.reconcile(steps.project_conflicts(), num_objectives=3)
        with pytest.raises(ValueError, match="end with 3 rows, not one"):
            once(transform, ROWS)

    def test_complex_gradients(self):
        transform = fairjax.pcgrad(num_objectives=2)
        rows = jnp.array([[1 + 1j, 0], [-1 - 1j, 1j]])
        with pytest.raises(ValueError, match="gradients must be real; got complex"):
            transform.update(rows, transform.init(rows[0]))
        wrapped = optax.contrib.split_real_and_imaginary(transform)
        found, _ = wrapped.update(rows, wrapped.init(rows[0]))
        # As of the real rows (1, 1, 0, 0) and (-1, -1, 0, 1).
        np.testing.assert_allclose(found, [(1 + 1j) / 3, 5j / 3], rtol=1e-6)

    def test_losses_in_a_list(self, untyped):
        transform = fairjax.famo(num_objectives=3)
        state = transform.init(ROWS[0])
        found, _ = transform.update(ROWS, state, losses=[1.0, 2.0, 3.0])
        expected, _ = transform.update(ROWS, state, losses=jnp.array([1.0, 2.0, 3.0]))
        np.testing.assert_array_equal(found, expected)
