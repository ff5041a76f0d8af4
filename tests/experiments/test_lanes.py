"""Lanes: the same as trained alone, killed and resumed, and what is refused."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.core import lanes, methods, runner
from experiments.core.programs import Budget, Program, Variant
from experiments.fairgrad.results import Options
from fairjax.models import MLP, functional

BUDGET = Budget(steps=20, steps_per_call=10, batch_size=128, hidden=(8,))


def train(program, splits, work, *, budget=BUDGET, seed=3, advance=None):
    return lanes.train(
        program,
        splits,
        budget,
        seed=seed,
        work=work,
        advance=advance or (lambda _: None),
    )


@pytest.fixture(scope="module")
def erm(splits, tmp_path_factory):
    (program,) = methods.build(["erm"], splits)
    work = tmp_path_factory.mktemp("erm")
    steps = []
    trained = train(program, splits, work, advance=steps.append)
    return SimpleNamespace(program=program, trained=trained, work=work, steps=steps)


@pytest.fixture(scope="module")
def single(splits, tmp_path_factory):
    """Variants of an attribute each, trained together."""
    (program,) = methods.build(["fairgrad_single"], splits)
    trained = train(program, splits, tmp_path_factory.mktemp("single"))
    return SimpleNamespace(program=program, trained=trained)


@pytest.mark.slow
def test_erm_is_plain_adamw_on_the_lane_s_training_rows(splits, erm):
    """Lane by lane, with jax.grad and optax only."""
    trained = erm.trained
    key = jax.random.key(3)
    label = jnp.asarray(splits.table.label, jnp.float32)
    transform = optax.adamw(
        optax.cosine_decay_schedule(BUDGET.learning_rate, BUDGET.steps),
        weight_decay=BUDGET.weight_decay,
    )

    def begin(key):
        return functional(MLP(splits.inputs.shape[-1], (8,), 1, rngs=nnx.Rngs(key)))

    apply, _ = begin(key)

    @jax.jit
    def step(params, state, inputs, rows):
        def loss(params):
            logits = apply(params, inputs[rows])[:, 0]
            return optax.sigmoid_binary_cross_entropy(logits, label[rows]).mean()

        updates, state = transform.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    for lane in (0, 7):
        inputs = jnp.asarray(splits.inputs[lane])
        train_rows = np.flatnonzero(splits.rows(lane, "train"))
        _, params = begin(jax.random.split(key, splits.num_lanes)[lane])
        stream = jax.random.split(jax.random.fold_in(key, 1), splits.num_lanes)[lane]
        state = transform.init(params)
        for _ in range(BUDGET.steps):
            stream, draw = jax.random.split(stream)
            drawn = jax.random.randint(draw, (128,), 0, len(train_rows))
            params, state = step(params, state, inputs, train_rows[drawn])
        np.testing.assert_allclose(
            trained.logits[0, lane], apply(params, inputs)[:, 0], atol=2e-4
        )
    assert trained.history[0]["values"].shape == (1, BUDGET.steps, 1)


@pytest.mark.slow
def test_variants_side_by_side_are_each_trained_alone(splits, single, tmp_path):
    """Each on the objectives of its attribute."""
    together = single.trained.logits
    assert [v.name for v in single.program.variants] == ["fairgrad_single"] * 2
    assert np.isfinite(together).all()
    alone = train(single.program.take([1]), splits, tmp_path).logits
    np.testing.assert_allclose(alone[0], together[1], atol=1e-4)
    # They differ by far more than that.
    assert np.abs(together[0] - together[1]).max() > 1e-3


@pytest.mark.slow
def test_a_lane_sees_its_own_training_rows_only(splits, erm, tmp_path):
    inputs = splits.inputs.copy()
    inputs[1] += 1
    for lane in range(splits.num_lanes):
        inputs[lane, ~splits.rows(lane, "train")] = 0
    changed = dataclasses.replace(splits, inputs=inputs)
    after = train(erm.program, changed, tmp_path).logits[0]
    before = erm.trained.logits[0]
    for lane in range(splits.num_lanes):
        rows = splits.rows(lane, "train")
        same = (after[lane, rows] == before[lane, rows]).all()
        assert same == (lane != 1)
    # Each has weights and batches of its own, also on the same fold numbers.
    assert np.abs(before[0] - before[5]).max() > 0.01


@pytest.mark.slow
def test_other_numbers_are_another_program(splits, erm):
    """What a killed run left is not taken for the same method at other numbers."""
    (phase,) = erm.program.phases
    slower = dataclasses.replace(
        erm.program, phases=(dataclasses.replace(phase, rate=0.1),)
    )
    other = train(slower, splits, erm.work)
    assert np.abs(other.logits - erm.trained.logits).max() > 0.01
    (penalty,) = methods.build(["penalty"], splits)
    one = penalty.take([0])
    stronger = {"weights": one.settings["weights"] * 10}
    weights = np.ones(splits.inputs.shape[:2], np.float32)
    programs = (
        erm.program,
        slower,
        dataclasses.replace(erm.program, example_weights=weights),
        penalty,
        one,
        dataclasses.replace(one, settings=stronger),
    )
    assert len({lanes._digest(program) for program in programs}) == len(programs)
    assert lanes._digest(penalty.take([0])) == lanes._digest(one)


@pytest.mark.slow
def test_a_finished_program_is_read_back(splits, erm):
    assert sum(erm.steps) == BUDGET.steps
    told = []
    again = train(erm.program, splits, erm.work, advance=told.append)
    assert told == [BUDGET.steps]
    np.testing.assert_array_equal(again.logits, erm.trained.logits)
    assert len(again.history) == 1
    for name, values in erm.trained.history[0].items():
        np.testing.assert_array_equal(again.history[0][name], values)


@pytest.mark.slow
def test_a_history_has_the_shapes_of_variants_and_steps(splits, single):
    (history,) = single.trained.history
    variants, objectives = len(single.program.variants), 1 + len(splits.attributes)
    shape = (variants, BUDGET.steps)
    assert history["values"].shape == (*shape, objectives)
    assert history["norms"].shape == (*shape, objectives)
    assert history["cosines"].shape == (*shape, objectives, objectives)
    assert history["conflict_share"].shape == shape
    assert all(np.isfinite(values).all() for values in history.values())
    assert single.trained.logits.shape == (
        variants,
        splits.num_lanes,
        len(splits.table.label),
    )


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"seed": 1}, False),
        ({"repeats": 3}, False),
        ({"blind": True}, False),
        ({"dataset": "rhc"}, False),
        ({"attributes": ("sex",)}, False),
        ({"bootstrap": 7, "permutations": 9, "tolerance": 0.1}, True),
        ({"methods": ("erm",)}, True),
    ],
)
def test_what_a_killed_run_left_is_for_the_same_training(change, same):
    options = Options(attributes=("sex", "race"))
    one = runner.fingerprint(options, BUDGET, ignore=("tolerance",))
    two = runner.fingerprint(
        dataclasses.replace(options, **change), BUDGET, ignore=("tolerance",)
    )
    assert (one == two) == same
    longer = dataclasses.replace(BUDGET, steps=30)
    assert runner.fingerprint(options, longer, ignore=("tolerance",)) != one


class KilledError(Exception):
    pass


def interrupted(program, splits, work, budget, call):
    """Trains with a checkpoint after each call, until the one of this number ends."""
    budget = dataclasses.replace(budget, seconds_between_checkpoints=0)
    calls = []

    def advance(_):
        calls.append(None)
        if len(calls) == call:
            raise KilledError

    with pytest.raises(KilledError):
        train(program, splits, work, budget=budget, advance=advance)
    return budget


@pytest.mark.slow
def test_a_run_killed_while_it_trains_ends_in_the_same_bits(splits, tmp_path):
    """In the last of three phases; checkpoints' own tests kill it while it saves."""
    (program,) = methods.build(
        ["two_phase_sequential", "two_phase_simultaneous"], splits
    )
    assert len(program.phases) == 3
    short = dataclasses.replace(BUDGET, steps=16, steps_per_call=2, hidden=(4,))
    killed, told = tmp_path / "killed", []
    budget = interrupted(program, splits, killed, short, 8)
    assert list(killed.glob("*-2/1"))
    assert not list(killed.glob("*.npz"))
    ended, whole = (
        train(program, splits, work, budget=budget, advance=told.append)
        for work in (killed, tmp_path / "whole")
    )
    assert sum(told) == 2 * budget.steps
    np.testing.assert_array_equal(ended.logits, whole.logits)
    assert np.unique(whole.logits).size > 10_000
    for one, two in zip(ended.history, whole.history, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named(splits, erm, tmp_path):
    longer = dataclasses.replace(BUDGET, steps=30)
    budget = interrupted(erm.program, splits, tmp_path / "killed", longer, 3)
    (checkpoint,) = (tmp_path / "killed").glob("*-0/2")
    described = checkpoint / "default" / "_METADATA"
    described.write_bytes(described.read_bytes()[: described.stat().st_size // 2])
    with pytest.raises(ValueError, match="it is damaged") as error:
        train(erm.program, splits, tmp_path / "killed", budget=budget)
    assert str(checkpoint) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"half of it", None])
def test_a_damaged_result_is_named(splits, erm, tmp_path, content):
    finished = erm.work / f"erm-{lanes._digest(erm.program)}.npz"
    damaged = tmp_path / finished.name
    whole = finished.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ValueError, match="cannot be read: it is damaged") as error:
        train(erm.program, splits, tmp_path)
    assert str(damaged) in str(error.value)


@pytest.mark.slow
def test_training_that_diverges_says_so(splits, erm, tmp_path):
    budget = dataclasses.replace(BUDGET, learning_rate=1e38)
    with pytest.raises(ValueError, match="^erm  ?diverged: its predictions are not"):
        train(erm.program, splits, tmp_path, budget=budget)
    assert not list(tmp_path.glob("*.npz"))


def test_taking_variants_takes_their_rows():
    program = Program(
        "p",
        (),
        tuple(Variant("v", str(i)) for i in range(3)),
        {"weights": np.arange(6.0).reshape(3, 2)},
    )
    taken = program.take([2, 0])
    assert [v.setting for v in taken.variants] == ["2", "0"]
    np.testing.assert_array_equal(taken.settings["weights"], [[4, 5], [0, 1]])
