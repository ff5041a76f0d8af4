"""Reconciling by level, against reconciling the blocks' vectors one by one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fairjax
from fairjax import steps

PCGRAD = [steps.project_conflicts(order="shared"), steps.combine("sum")]
NASH = steps.nash_mtl()
MEAN = steps.combine("mean")


def draw(size, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(size, 7)), jnp.float32)


@functools.cache
def compiled(chain, size):
    transform = fairjax.reconcile(*chain, num_objectives=size)
    return transform.init(None), jax.jit(transform.update)


def reconciled(rows, *chain, losses=None):
    """One reconciled vector of the rows, by the chain alone."""
    state, update = compiled(chain, len(rows))
    return update(rows, state, losses=losses)[0]


def by_level(rows, levels, *chain, **extra):
    return reconciled(rows, steps.by_level(levels, *chain), **extra)


@pytest.mark.slow
def test_two_levels_of_ragged_blocks():
    rows = draw(5)
    found = by_level(rows, [[3, 0, 1], [2, 4]], NASH, steps.conflict_free())
    first = reconciled(rows[jnp.array([3, 0, 1])], NASH)
    second = reconciled(rows[jnp.array([2, 4])], NASH)
    wanted = reconciled(jnp.stack([first, second]), steps.conflict_free())
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4)


def test_three_levels_with_numbers_beside_blocks():
    """Levels count from the finest: [0, 1] and [2, 3] first, then [.., 4], then all."""
    rows = draw(6)
    levels = [[[0, 1], [2, 3], 4], 5]
    found = by_level(rows, levels, steps.combine("sum"), MEAN, steps.imtl_g())
    first, second = rows[0] + rows[1], rows[2] + rows[3]
    inner = (first + second + rows[4]) / 3
    wanted = reconciled(jnp.stack([inner, rows[5]]), steps.imtl_g())
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_one_step_for_all_levels():
    rows = draw(4)
    found = by_level(rows, [[0, 1], [2, 3]], MEAN)
    np.testing.assert_allclose(found, rows.mean(axis=0), rtol=1e-4, atol=1e-6)
    flat = by_level(rows, [0, 1, 2, 3], NASH)
    np.testing.assert_allclose(flat, reconciled(rows, NASH), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_chains_of_steps():
    rows = draw(4)
    given = [steps.project_conflicts(order=[0, 1]), steps.combine("sum")]
    found = by_level(rows, [[0, 1], [2, 3]], given)
    halves = [reconciled(rows[:2], *given), reconciled(rows[2:], *given)]
    wanted = reconciled(jnp.stack(halves), *given)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_losses_of_blocks_are_means():
    """Step ln 2: within, weights grow by 2^loss; then by 2^(mean loss)."""
    step = steps.by_level([[0, 1], [2]], steps.group_dro(float(np.log(2))))
    eye = np.eye(3, dtype=np.float32)
    found, _ = jax.jit(step.update)(
        eye, eye, step.init(3), losses=np.array([0.0, 2.0, 3.0], np.float32)
    )
    np.testing.assert_allclose(found, [[0.2 / 5, 0.8 / 5, 0.8]], rtol=1e-5)


def test_masked_rows_and_empty_blocks_are_left_out():
    rows = draw(5)
    step = steps.by_level([[0, 1], [2, 3], [4]], MEAN)
    update = functools.partial(jax.jit(step.update), np.eye(5, dtype=np.float32))
    gram = np.asarray(rows) @ np.asarray(rows).T
    mask = np.array([True, False, False, False, True])
    found, _ = update(gram, step.init(5), mask=mask)
    np.testing.assert_allclose(found, [[0.5, 0, 0, 0, 0.5]], rtol=1e-6)
    none, _ = update(gram, step.init(5), mask=np.zeros(5, bool))
    np.testing.assert_array_equal(none, np.zeros((1, 5)))


def test_rows_that_are_sums_of_gradients():
    """Rows g₀ + g₁, g₁ and g₂, of which the first two are added up."""
    rows = jnp.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    step = steps.by_level([[0, 1], [2]], steps.combine("sum"), MEAN)
    found, _ = step.update(rows, jnp.eye(3), step.init(3))
    np.testing.assert_allclose(found, [[0.5, 1, 0.5]])


@pytest.mark.slow
def test_every_block_draws_its_own():
    step = steps.by_level([[0, 1], [2, 3]], steps.random_weighting(key=5), MEAN)
    draw_weights = jax.jit(step.update)
    found, state = draw_weights(jnp.eye(4), jnp.eye(4), step.init(4))
    assert abs(found[0, 0] - found[0, 2]) > 1e-3
    after, _ = draw_weights(jnp.eye(4), jnp.eye(4), state)
    assert not np.allclose(after, found)
    # Also inside a chain of steps.
    chained = steps.by_level([[0, 1], [2, 3]], PCGRAD).init(4)
    data = {np.asarray(block[0].key_data).tobytes() for block in chained}
    assert len(data) == 3


def test_states_are_of_the_blocks_in_order():
    step = steps.by_level([[0, 1, 2], [3, 4]], steps.gradvac(), MEAN)
    with pytest.raises(ValueError, match="end with 3 rows, not one"):
        step.update(jnp.eye(5), jnp.eye(5), step.init(5))
    chain = [steps.gradvac(), steps.combine("sum")]
    step = steps.by_level([[0, 1, 2], [3, 4]], chain, MEAN)
    state = step.init(5)
    assert [block[0].targets.shape for block in state[:2]] == [(3, 3), (2, 2)]
    _, after = step.update(jnp.eye(5), jnp.eye(5), state)
    assert jax.tree.structure(after) == jax.tree.structure(state)


@pytest.mark.slow
def test_it_scans_and_vmaps():
    transform = fairjax.reconcile(
        steps.by_level([[0, 1], [2, 3]], PCGRAD, NASH), num_objectives=4
    )
    batches = jnp.stack([draw(4, seed) for seed in range(3)])

    def update(state, rows):
        found, state = transform.update(rows, state)
        return state, found

    state = transform.init(None)
    _, scanned = jax.lax.scan(update, state, batches)
    _, mapped = jax.jit(jax.vmap(update, in_axes=(None, 0)))(state, batches)
    np.testing.assert_allclose(scanned[0], mapped[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([[0, 1], [1, 2]], "row 1 must not be repeated in levels"),
        ([[0, 1], [3]], "row 2 is missing from levels"),
        ([[0, -1], [1]], "number the rows from 0; got -1"),
        ([[0, 1], []], "have an empty block"),
        ([], "have an empty block"),
        ([[0, True]], "hold row numbers; got True"),
    ],
)
def test_levels_that_are_none(levels, message):
    with pytest.raises(ValueError, match=message):
        steps.by_level(levels, MEAN)


def test_steps_and_rows_that_do_not_fit():
    with pytest.raises(ValueError, match="have 2 levels: .*; got 3"):
        steps.by_level([[0, 1], [2]], MEAN, MEAN, MEAN)
    with pytest.raises(ValueError, match="; got 0"):
        steps.by_level([[0, 1], [2]])
    with pytest.raises(ValueError, match="each level must have at least one step"):
        steps.by_level([[0, 1], [2]], [])
    step = steps.by_level([[0, 1], [2]], MEAN)
    with pytest.raises(ValueError, match="the rows 0 to 2; there are 4 rows"):
        step.init(4)
    with pytest.raises(ValueError, match="the rows 0 to 2; there are 2 rows"):
        step.update(jnp.eye(2), jnp.eye(2), step.init(3))
