"""Direction and magnitude at two levels, against by_level and against float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fairjax
from fairjax import steps
from fairjax.modulation import dual_level, modality_group_levels

SWITCHES = (
    "group_direction",
    "group_magnitude",
    "modality_direction",
    "modality_magnitude",
)
OFF = dict.fromkeys(SWITCHES, False)
GRID = list(itertools.product([False, True], repeat=4))


def draw(num_modalities, num_groups, seed=0):
    """Rows of which many conflict, of very different lengths; 8 numbers each."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(num_modalities, num_groups, 8))
    rows += 2 * rng.normal(size=(num_modalities, 1, 8)) * [1, 0, 0, 0, 0, 0, 0, 0]
    rows *= 10 ** rng.uniform(-1, 1, (num_modalities, num_groups, 1))
    return rows.reshape(-1, 8).astype(np.float32)


def level(rows, used, direction, magnitude, limit=np.inf):
    """One level of vectors into one: the equations, in float64."""
    rows = [row.copy() for row in rows]
    used = [i for i in range(len(rows)) if used[i] and np.any(rows[i])]
    if magnitude and used:
        mean = np.mean([np.linalg.norm(rows[i]) for i in used])
        for i in used:
            rows[i] *= min(mean / np.linalg.norm(rows[i]), limit)
    total = np.zeros_like(rows[0])
    for i in used:
        row = rows[i].copy()
        for j in used:
            inner = row @ rows[j]
            if direction and i != j and inner < 0:
                row -= inner / (rows[j] @ rows[j]) * rows[j]
        total += row
    return total


def transcribed(rows, num_modalities, switches, mask=None, limit=np.inf):
    rows = rows.astype(np.float64)
    mask = np.ones(len(rows), bool) if mask is None else np.asarray(mask)
    blocks = [
        level(part, used, *switches[:2], limit)
        for part, used in zip(
            np.split(rows, num_modalities), np.split(mask, num_modalities), strict=True
        )
    ]
    return level(blocks, [True] * num_modalities, *switches[2:], limit)


@functools.cache
def mapped(num_modalities, num_groups, limited=False):
    """All settings of the switches at once: traced, compiled once."""

    def run(switches, rows, mask, limit):
        tx = dual_level(
            num_modalities=num_modalities,
            num_groups=num_groups,
            order="numbered",
            limit=limit if limited else None,
            **dict(zip(SWITCHES, switches, strict=True)),
        )
        return tx.update(rows, tx.init(rows[0]), mask=mask)[0]

    compiled = jax.jit(jax.vmap(run, in_axes=(0, None, None, None)))

    def call(rows, mask=None, limit=1.0):
        mask = np.ones(len(rows), bool) if mask is None else mask
        return compiled(jnp.array(GRID), jnp.asarray(rows), jnp.asarray(mask), limit)

    return call


def check(found, rows, num_modalities, mask=None, limit=np.inf):
    for switches, ours in zip(GRID, found, strict=True):
        wanted = transcribed(rows, num_modalities, switches, mask, limit)
        scale = np.linalg.norm(wanted) + 1e-6
        np.testing.assert_allclose(
            ours / scale, wanted / scale, atol=2e-5, err_msg=str(switches)
        )


@pytest.mark.parametrize(
    ("num_modalities", "num_groups"),
    [pytest.param(2, 2, marks=pytest.mark.slow), (3, 6)],
)
def test_every_setting_equals_the_equations(num_modalities, num_groups):
    for seed in range(3):
        rows = draw(num_modalities, num_groups, seed)
        check(mapped(num_modalities, num_groups)(rows), rows, num_modalities)


@pytest.mark.slow
def test_a_limit_holds_what_is_lengthened():
    rows = draw(2, 3)
    found = mapped(2, 3, limited=True)
    check(found(rows, limit=1.5), rows, 2, limit=1.5)
    # None is lengthened, and long ones are still shortened.
    check(found(rows, limit=1.0), rows, 2, limit=1.0)


def test_objectives_that_are_absent():
    """A modality that one group lacks; one that all lack; and all of them."""
    rows = draw(3, 6)
    run = mapped(3, 6)
    some = np.ones(18, bool)
    some[[1, 8]] = False
    whole = some.copy()
    whole[6:12] = False
    one = np.zeros(18, bool)
    one[4] = True
    for mask in (some, whole, one):
        found = run(rows, mask)
        check(found, rows, 3, mask)
        # To the bit as if they were not finite, and as if they were zero.
        for value in (np.nan, 0.0):
            other = np.where(mask[:, None], rows, np.float32(value))
            np.testing.assert_array_equal(run(other), found)
    np.testing.assert_array_equal(run(rows, np.zeros(18, bool)), 0)
    np.testing.assert_array_equal(run(0 * rows), 0)


@pytest.mark.slow
def test_all_off_is_the_plain_sum_at_any_scale():
    for scale in (1e-12, 1.0, 1e12):
        rows = draw(2, 2) * np.float32(scale)
        found = mapped(2, 2)(rows)[GRID.index((False,) * 4)]
        np.testing.assert_allclose(found, rows.sum(axis=0), rtol=1e-5)


def test_all_on_does_not_depend_on_the_length_of_any_row():
    """But for the common length, which is the mean."""
    rows = draw(3, 6)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    found = mapped(3, 6)(rows)[-1]
    other = mapped(3, 6)(rows / lengths)[-1]
    cosine = found @ other / np.linalg.norm(found) / np.linalg.norm(other)
    # Lengths of a modality's groups differ between modalities; directions do not.
    assert cosine == pytest.approx(1, abs=1e-5)


def explicit(inner, outer, num_modalities=2, num_groups=3):
    blocks = modality_group_levels(num_modalities, num_groups)
    return fairjax.reconcile(
        steps.by_level(blocks, inner, outer), num_objectives=num_modalities * num_groups
    )


SUM = steps.combine("sum")


def chains(key):
    project = [steps.project_conflicts(key=key), SUM]
    balance = steps.balance_magnitudes()
    return {
        ("group_direction",): (project, SUM),
        ("modality_direction",): (SUM, project),
        SWITCHES: ([balance, *project],) * 2,
    }


@pytest.mark.slow
@pytest.mark.parametrize("on", chains(0))
def test_each_switch_is_a_step_of_by_level(on):
    """Also in the random orders that it draws, one update after another."""
    rows = jnp.asarray(draw(2, 3))
    tx = dual_level(
        num_modalities=2, num_groups=3, key=7, **OFF | dict.fromkeys(on, True)
    )
    other = explicit(*chains(7)[on])
    state, other_state = tx.init(rows[0]), other.init(rows[0])

    @jax.jit
    def both(rows, state, other_state):
        return tx.update(rows, state), other.update(rows, other_state)

    for _ in range(3):
        (found, state), (wanted, other_state) = both(rows, state, other_state)
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(
        optax.tree.get(state, "weights"),
        optax.tree.get(other_state, "weights"),
        rtol=2e-5,
        atol=2e-5,
    )


@pytest.mark.slow
def test_traced_switches_are_as_static_ones():
    rows = jnp.asarray(draw(2, 3))
    traced = mapped(2, 3)(rows)
    some = (GRID[6], GRID[9])

    @jax.jit
    def static(rows):
        found = []
        for switches in some:
            tx = dual_level(
                num_modalities=2,
                num_groups=3,
                order="numbered",
                **dict(zip(SWITCHES, switches, strict=True)),
            )
            found.append(tx.update(rows, tx.init(rows[0]))[0])
        return found

    for switches, found in zip(some, static(rows), strict=True):
        np.testing.assert_allclose(
            found, traced[GRID.index(switches)], rtol=1e-5, atol=1e-5
        )


@pytest.mark.slow
def test_one_modality_of_one_group_is_left_as_it_is():
    rows = draw(1, 1)
    np.testing.assert_allclose(mapped(1, 1)(rows), np.tile(rows, (16, 1)), rtol=1e-6)


@pytest.mark.slow
def test_groups_may_be_renamed():
    """Two groups: a row meets one other, so that no order is left to matter."""
    rows = draw(2, 2)
    swapped = rows.reshape(2, 2, 8)[:, ::-1].reshape(4, 8)
    run = mapped(2, 2)
    np.testing.assert_allclose(run(swapped), run(rows), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_groups_may_be_renamed_with_their_order():
    rows = draw(2, 3)
    place = np.array([2, 0, 1])
    moved = rows.reshape(2, 3, 8)[:, place].reshape(6, 8)

    def run(rows, order):
        tx = explicit(
            [steps.balance_magnitudes(), steps.project_conflicts(order=order), SUM],
            [
                steps.balance_magnitudes(),
                steps.project_conflicts(order="numbered"),
                SUM,
            ],
        )
        return jax.jit(tx.update)(jnp.asarray(rows), tx.init(None))[0]

    found = run(moved, [int(np.flatnonzero(place == g)[0]) for g in range(3)])
    np.testing.assert_allclose(found, run(rows, [0, 1, 2]), rtol=1e-4, atol=1e-4)
    wanted = mapped(2, 3)(rows)[-1]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_levels_number_the_rows():
    assert modality_group_levels(1, 1) == [[0]]
    assert modality_group_levels(3, 2) == [[0, 1], [2, 3], [4, 5]]
