"""Each method of the MultiFair experiment is what its name says."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.core import lanes
from experiments.multifair import methods as multifair_methods
from experiments.multifair import modulated as multifair_modulated
from experiments.multifair.modulated import (
    DECAY,
    DIRECTION,
    FAIRNESS,
    MU,
    RHO,
    SIGNED_LIMIT,
    TAU,
)
from experiments.multifair.names import FACTORS, GRID
from experiments.multifair.task import CLIP
from fairjax import modulation, sweep

ROWS = 64


def program_of(small, name):
    return multifair_methods.build((name,), small.task, small.splits)[0]


@pytest.fixture(scope="module")
def batch(small):
    """What transformations are told of a batch whose groups are served unequally."""
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 2, ROWS), (rng.random(ROWS) < 0.3).astype(int)
    scores = rng.random((ROWS, 3))
    scores[:, 0] += 0.6 * labels * (groups == 0)
    fused = rng.random(ROWS) + labels * np.where(groups == 0, 1.0, -0.2)
    return {
        "unimodal_scores": jnp.asarray(scores / 2, jnp.float32),
        "scores": jnp.asarray(fused / 2.2, jnp.float32),
        "labels": jnp.asarray(labels),
        "groups": jnp.asarray(groups),
        "present": jnp.ones((ROWS, 3), bool),
    }


@pytest.fixture(scope="module")
def gradients(small):
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-3), small.params)


def updated(transform, gradients, batch):
    """After two batches: the first change of the AUCs is from their start."""
    transform = optax.with_extra_args_support(transform)

    @jax.jit
    def twice(gradients, batch):
        def one(state, scores):
            given = {**batch, "unimodal_scores": scores}
            update, state = transform.update(gradients, state, gradients, **given)
            return state, update

        first = batch["unimodal_scores"]
        both = jnp.stack([first, first[:, ::-1]])
        updates = jax.lax.scan(one, transform.init(gradients), both)[1]
        return jax.tree.map(lambda leaf: leaf[1], updates)

    return twice(gradients, batch)


def of_setting(program, place):
    return {name: jnp.asarray(v[place]) for name, v in program.settings.items()}


def settings_of(program):
    """Stacked, for `jax.vmap`."""
    return {name: jnp.asarray(values) for name, values in program.settings.items()}


def assert_equal_trees(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected
    )


def clipped(*transforms):
    return optax.chain(*transforms, optax.clip_by_global_norm(CLIP))


@pytest.mark.slow
def test_the_grids_magnitudes_are_its_second_and_fourth_digits(small, gradients, batch):
    program = program_of(small, "multifair_levels")
    whole = multifair_modulated.modulated(small.task, small.splits)
    assert [v.setting for v in program.variants] == [
        "".join(map(str, setting)) for setting in GRID[1:-1]
    ]
    reconciler = whole.phases[0].reconciler
    every = jax.jit(jax.vmap(lambda s: updated(reconciler(s), gradients, batch)))
    found = every(settings_of(whole))
    args = (small.task.labels, small.task.names)

    def expected(setting):
        balance = modulation.balance_modalities(*args, rho=RHO)
        groups = modulation.balance_groups(
            *args, num_groups=2, mu=MU, tau=TAU, decay=DECAY
        )
        chosen = [t for t, on in ((balance, setting[1]), (groups, setting[3])) if on]
        return updated(clipped(*chosen), gradients, batch)

    made = {key: expected((0, key[0], 0, key[1])) for key in np.ndindex(2, 2)}
    heads = [tree["auxiliary"] for tree in made.values()]
    encoders = [
        float(jax.tree.leaves(tree["encoders"])[0].ravel()[0]) for tree in made.values()
    ]
    assert len(set(encoders)) == 4
    assert_equal_trees(heads[0], heads[-1])
    for place, setting in enumerate(GRID):
        one = jax.tree.map(lambda leaf, place=place: leaf[place], found)
        assert_equal_trees(one, made[setting[1], setting[3]])


@pytest.mark.slow
def test_the_grids_directions_are_its_first_and_third_digits(small):
    """The first compares gradients, the third groups: each acts alone."""
    program = multifair_modulated.modulated(small.task, small.splits)
    np.testing.assert_allclose(
        program.settings["direction"][:16], DIRECTION * np.array(GRID)[:, 0]
    )
    phase, learner = program.phases[0], small.task.learner
    params = jax.jit(learner.begin)(jax.random.key(0))
    inputs = jax.tree.map(lambda x: jnp.asarray(x)[0], learner.inputs)
    shared = jax.tree.map(jnp.asarray, learner.shared)
    rows = jnp.arange(ROWS)
    given = {**learner.batch(inputs, shared, rows), "weights": jnp.ones(ROWS)}
    settings = settings_of(program)
    state = phase.reconciler(of_setting(program, 0)).init(params)

    @jax.jit
    def losses(groups, presence):
        def one(setting):
            own = {**given, "groups": groups, "modalities": presence}
            return phase.loss(setting)(params, own, state)[0]

        return jax.vmap(one)(settings)

    groups = given["groups"]
    everything = jnp.ones(3, bool)
    swapped = 1 - groups.at[: ROWS // 2].set(1 - groups[: ROWS // 2])
    first, second = losses(groups, everything), losses(swapped, everything)

    def effect(values, setting):
        return float(values[GRID.index(setting)] - values[0])

    direction, fairness = (1, 0, 0, 0), (0, 0, 1, 0)
    assert effect(first, direction) > 1e-3
    # Which patients are in which group is nothing to the direction term.
    assert effect(first, direction) == pytest.approx(effect(second, direction), 1e-4)
    gaps = effect(first, fairness), effect(second, fairness)
    assert max(gaps) > 1e-4
    assert gaps[0] != pytest.approx(gaps[1], rel=1e-2)
    for setting in GRID:
        parts = setting[0] * effect(first, direction)
        parts += setting[2] * effect(first, fairness)
        assert effect(first, setting) == pytest.approx(parts, abs=1e-6)
    assert program.settings["fairness"][GRID.index(fairness)] == FAIRNESS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "make"),
    [
        (
            "multifair_released",
            lambda *args: modulation.multifair(
                *args, num_groups=2, mode="released", rho=RHO, mu=MU, tau=TAU
            ),
        ),
        (
            "cggm",
            lambda *args: modulation.balance_modalities(
                *args, rho=RHO, signed=True, limit=SIGNED_LIMIT
            ),
        ),
    ],
)
def test_modulated_methods(small, gradients, batch, name, make):
    (phase,) = program_of(small, name).phases
    expected = clipped(make(small.task.labels, small.task.names))
    assert_equal_trees(
        updated(phase.reconciler({}), gradients, batch),
        updated(expected, gradients, batch),
    )


@pytest.mark.slow
def test_after_adam_nothing_comes_before(small, gradients, batch):
    program = program_of(small, "multifair_after_adam")
    (phase,) = program.phases
    setting = of_setting(program, 0)

    def result(transform):
        return jax.jit(lambda s: updated(transform(s), gradients, batch))(setting)

    plain = updated(clipped(), gradients, batch)
    assert_equal_trees(result(phase.reconciler), plain)
    scaled = result(phase.after)
    encoder = jax.tree.leaves(scaled["encoders"])[0].ravel()[0]
    assert float(encoder) != pytest.approx(1e-3, rel=1e-3)


@pytest.mark.slow
def test_the_reconciliations_grid_is_its_digits(small):
    program = program_of(small, "dual_level_levels")
    whole = multifair_methods.build(
        ("joint_auxiliary", "dual_level", "dual_level_levels"),
        small.task,
        small.splits,
    )[0]
    assert len(program.variants) == 14
    for place, setting in enumerate(GRID):
        own = of_setting(whole, place)
        assert own == {
            factor.replace(" ", "_"): bool(on)
            for factor, on in zip(FACTORS, setting, strict=True)
        }
    (phase,) = whole.phases
    blocks = 1 + len(small.task.names)
    rows = jnp.asarray(
        np.random.default_rng(1).normal(size=(2 * blocks, 5)) * 1e-2, jnp.float32
    )

    def combined(transform):
        return transform.update(rows, transform.init(rows[0]))[0]

    every = jax.jit(jax.vmap(lambda s: combined(phase.reconciler(s))))
    found = every(settings_of(whole))
    seen = []
    for place in (0, 1, 2, 4, 8, 15):
        flags = of_setting(whole, place)
        expected = combined(
            clipped(
                modulation.dual_level(
                    num_modalities=blocks,
                    num_groups=2,
                    limit=10.0,
                    **{name: bool(on) for name, on in flags.items()},
                )
            )
        )
        np.testing.assert_allclose(found[place], expected, rtol=1e-4, atol=1e-7)
        seen.append(tuple(np.asarray(expected).round(6)))
    assert len(set(seen)) == len(seen)


@pytest.mark.slow
def test_what_draws_draws_otherwise_in_every_lane(small):
    """Random orders and noise are part of what seeds differ by."""
    for name in ("ogm_ge", "dual_level", "fairgrad"):
        assert all(phase.keys_by_lane for phase in program_of(small, name).phases)
    program, learner = program_of(small, "ogm_ge").take([0]), small.task.learner
    (phase,) = program.phases
    mesh = sweep.lane_mesh(5)
    start, _ = lanes._compile(phase, small.splits, learner, small.budget, mesh)
    keys = jax.jit(lambda: lanes._weights(learner.begin, 5, 0)[1])()[None]
    params = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (1, 5, *leaf.shape)), small.params
    )
    run = start((params, keys), settings_of(program), jnp.array([1.0, 4.0]))
    drawn_with = np.asarray(optax.tree.get(run.state.opt_state, "key_data"))
    assert len(np.unique(drawn_with.reshape(5, -1), axis=0)) == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["multifair_after_adam", "cggm", "penalty", "dual_level"],
)
def test_programs_are_traced_to_the_end_and_record_what_they_observe(small, name):
    """The command's test trains others."""
    program, learner = program_of(small, name).take([0]), small.task.learner
    mesh = sweep.lane_mesh(small.splits.num_lanes)
    lane, shared = lanes._on_devices(program, small.splits, learner, mesh)
    begun = lanes._begin(learner, 1, small.splits.num_lanes, 0)
    schedule = jnp.array([1.0, 4.0])
    for phase in program.phases:
        start, loop = lanes._compile(phase, small.splits, learner, small.budget, mesh)
        settings = settings_of(program) | {
            key: jnp.asarray(values) for key, values in phase.settings.items()
        }
        run = jax.eval_shape(start, begun, settings, schedule)
        after, told = jax.eval_shape(loop, run, lane, settings, (shared, schedule))
        kinds = [
            [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]
            for tree in (run, after)
        ]
        assert kinds[0] == kinds[1]
        assert {"values", *phase.observed} <= set(told)


@pytest.mark.slow
def test_the_penalty_weighs_the_gaps_alone(small):
    program = program_of(small, "penalty")
    names = list(program.phases[0].functions)
    assert (names[0], names[-1]) == ("task", "heads")
    weights = program.settings["weights"]
    np.testing.assert_array_equal(weights[:, [0, -1]], 1)
    np.testing.assert_allclose(weights[:, 1:-1].mean(axis=1), (0.05, 0.2, 1, 5))
