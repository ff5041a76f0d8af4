"""Training: the step, the scanned loop, selection, maps, devices."""

import functools

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import fairjax
from fairjax import losses, training

RNG = np.random.default_rng(0)
SIZE = 64
FEATURES = RNG.normal(size=(SIZE, 3)).astype(np.float32)
TABLE = {
    "sex": RNG.integers(0, 2, SIZE),
    "y": (FEATURES[:, 0] + RNG.normal(size=SIZE) > 0).astype(np.int32),
}
CELLS = fairjax.partition(TABLE)
DATA = {"x": FEATURES, "y": TABLE["y"], "cells": CELLS.encode(TABLE)}
PARAMS = {"w": jnp.zeros(3), "b": jnp.zeros(())}


def statistics(params, batch):
    logit = batch["x"] @ params["w"] + params["b"]
    loss = optax.sigmoid_binary_cross_entropy(logit, batch["y"])
    return {"loss": loss, "score": jax.nn.sigmoid(logit)}


OBJECTIVES = fairjax.cell_objectives(
    statistics,
    CELLS,
    {
        "task": losses.task(CELLS),
        "odds": losses.equalized_odds(CELLS, "sex", label="y"),
        "women": losses.group_risk(CELLS, "sex", 0),
    },
)


def sample(key, data):
    rows = jax.random.randint(key, (16,), 0, SIZE)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], data)


def accuracy(params, data):
    return -jnp.mean(statistics(params, data)["loss"])


def transform(strength=0.5):
    return optax.chain(
        fairjax.fairgrad(num_objectives=3, strength=strength), optax.adamw(0.05)
    )


@functools.cache
def compiled_step():
    return jax.jit(training.make_train_step(OBJECTIVES, transform(), strategy="pulls"))


def started(seed):
    return training.start(training.init_state(PARAMS, transform(), key=seed))


@jax.jit
def train(run, strength):
    """Three steps on from where the run is."""
    step = training.make_train_step(OBJECTIVES, transform(strength), strategy="pulls")
    loop = training.make_loop(step, sample, steps_per_call=3, score=accuracy)
    return loop(run, DATA)


def assert_close(found, expected, **options):
    options = {"rtol": 1e-5, "atol": 1e-6, **options}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **options), found, expected
    )


class TestStep:
    def test_by_hand(self):
        """One step of PCGrad and plain descent on rows (1, 0) and (−1, −1)."""
        objectives = fairjax.stack_objectives(
            {"a": lambda w, batch: w[0], "b": lambda w, batch: -w[0] - w[1]}
        )
        tx = optax.chain(fairjax.pcgrad(num_objectives=2), optax.sgd(0.5))
        step = jax.jit(training.make_train_step(objectives, tx))
        state = training.init_state(jnp.array([1.0, 2.0]), tx, key=0)
        state, info = step(state, {"objective_mask": np.array([True, True])})
        np.testing.assert_allclose(state.params, [0.75, 2.75])
        np.testing.assert_allclose(info.values, [1, -3])
        assert bool(info.finite)
        assert int(state.step) == 1
        # And one on the first row alone.
        state, _ = step(state, {"objective_mask": np.array([True, False])})
        np.testing.assert_allclose(state.params, [0.25, 2.75])

    @pytest.mark.slow
    def test_one_objective_is_plain_training(self):
        objective = fairjax.stack_objectives(
            {"task": lambda p, b: jnp.mean(statistics(p, b)["loss"])}
        )
        inner = optax.adamw(0.05)
        tx = optax.chain(fairjax.pcgrad(num_objectives=1), inner)
        step = jax.jit(training.make_train_step(objective, tx))
        state = training.init_state(PARAMS, tx, key=0)
        params, opt_state = PARAMS, inner.init(PARAMS)
        for _ in range(3):
            state, _ = step(state, DATA)
            gradient = jax.grad(lambda p: objective(p, DATA)[0])(params)
            updates, opt_state = inner.update(gradient, opt_state, params)
            params = optax.apply_updates(params, updates)
        assert_close(state.params, params)

    @pytest.mark.slow
    def test_objective_mask_and_losses_reach_the_reconciler(self):
        state = training.init_state(PARAMS, transform(), key=0)
        batch = {**DATA, "objective_mask": jnp.array([True, False, True])}
        state, _ = compiled_step()(state, batch)
        weights = optax.tree.get(state, "weights")
        assert float(weights[1]) == 0
        assert (np.asarray(weights)[[0, 2]] != 0).all()

        tx = fairjax.reconcile(
            fairjax.steps.balance_magnitudes("loss_ratio"),
            fairjax.steps.combine(),
            num_objectives=3,
        )
        state = training.init_state(PARAMS, tx, key=0)
        step = training.make_train_step(OBJECTIVES, tx, strategy="pulls")
        state, info = jax.jit(step)(state, DATA)
        # The odds' gap is exactly 0 at the start: no ratio can be taken of it yet.
        expected = np.where(np.asarray(info.values) > 0, info.values, 0)
        np.testing.assert_allclose(optax.tree.get(state, "initial_losses"), expected)

    def test_a_row_that_is_not_finite_leaves_the_parameters_finite(self):
        objectives = fairjax.stack_objectives(
            {"good": lambda w, b: jnp.sum(w * b), "bad": lambda w, b: jnp.log(w[0])}
        )
        tx = optax.chain(fairjax.pcgrad(num_objectives=2), optax.sgd(1.0))
        step = training.make_train_step(lambda w, b: objectives(w, b["x"]), tx)
        state = training.init_state(jnp.array([-1.0, 0.0]), tx, key=0)
        state, info = step(state, {"x": jnp.array([1.0, 2.0])})
        np.testing.assert_allclose(state.params, [-2, -2])
        assert bool(info.finite)
        np.testing.assert_array_equal(optax.tree.get(state, "nonfinite"), [0, 1])

    def test_parameters_that_are_not_finite_are_told(self):
        objective = fairjax.stack_objectives({"a": lambda w, b: jnp.sum(w)})
        tx = optax.chain(fairjax.pcgrad(num_objectives=1), optax.scale(jnp.inf))
        step = jax.jit(training.make_train_step(objective, tx))
        _, info = step(training.init_state(jnp.ones(2), tx, key=0), {})
        assert not bool(info.finite)

    @pytest.mark.slow
    def test_running_means_are_carried(self):
        objectives = fairjax.cell_objectives(
            statistics, CELLS, OBJECTIVES.functions, decay=0.5
        )
        step = jax.jit(
            training.make_train_step(objectives, transform(), strategy="pulls")
        )
        state = training.init_state(PARAMS, transform(), key=0, objectives=objectives)
        running, params = objectives.init_running(), PARAMS
        values = jax.jit(objectives)
        for i in range(3):
            batch = sample(jax.random.key(i), DATA)
            expected, running = values(params, batch, running)
            state, info = step(state, batch)
            assert_close(info.values, expected)
            assert_close(state.objective_state, running)
            params = state.params
        assert training.init_state(PARAMS, transform(), key=0).objective_state == ()

    @pytest.mark.slow
    def test_linen_model(self):
        model = flax.linen.Sequential(
            [flax.linen.Dense(8), jax.nn.relu, flax.linen.Dense(1)]
        )
        objectives = fairjax.cell_objectives(
            lambda params, batch: {
                "loss": optax.sigmoid_binary_cross_entropy(
                    model.apply(params, batch["x"])[:, 0], batch["y"]
                )
            },
            CELLS,
            losses.group_risks(CELLS, "sex"),
        )
        tx = optax.chain(fairjax.pcgrad(num_objectives=2), optax.adam(0.05))
        step = jax.jit(training.make_train_step(objectives, tx, strategy="pulls"))
        params = model.init(jax.random.key(0), FEATURES)
        state = training.init_state(params, tx, key=0)
        values = []
        for _ in range(20):
            state, info = step(state, DATA)
            values.append(np.asarray(info.values))
        assert (values[-1] < values[0] - 0.05).all()
        assert jax.tree.structure(state.params) == jax.tree.structure(params)


class TestInitState:
    def test_seed_raw_key_and_typed_key_are_the_same(self):
        key = jax.random.key(5)
        for alike in (5, jnp.array(5), key, jax.random.key_data(key)):
            state = training.init_state(PARAMS, transform(), key=alike)
            np.testing.assert_array_equal(state.key_data, jax.random.key_data(key))

    def test_weakly_typed_parameters_compile_once(self):
        objective = fairjax.stack_objectives({"a": lambda w, b: w**2})
        tx = optax.chain(fairjax.pcgrad(num_objectives=1), optax.adam(0.1))
        step = jax.jit(training.make_train_step(objective, tx))
        state = training.init_state(jnp.array(1.0), tx, key=0)
        for _ in range(3):
            state, _ = step(state, {})
        assert step._cache_size() == 1


class TestLoop:
    @pytest.mark.slow
    def test_equals_single_steps(self):
        """Two calls of three steps, the second going on where the first ended."""
        run, _ = train(started(3), jnp.array(0.5))
        run, (infos, observed) = train(run, jnp.array(0.5))
        state = training.init_state(PARAMS, transform(), key=3)
        for i in range(6):
            key, draw = jax.random.split(jax.random.wrap_key_data(state.key_data))
            state = state._replace(key_data=jax.random.key_data(key))
            state, info = compiled_step()(state, sample(draw, DATA))
            if i >= 3:
                here = jax.tree.map(lambda leaf, i=i: leaf[i - 3], infos)
                assert_close(here, info, rtol=1e-4)
        assert_close(run.state, state, rtol=1e-4, atol=1e-5)
        assert observed == ()

    @pytest.mark.slow
    def test_maps_over_seeds_and_strengths(self):
        seeds, strengths = jnp.array([0, 1]), jnp.array([0.2, 1.5])

        def one(seed, strength):
            return train(started(seed), strength)

        over_both = jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None))
        found, _ = jax.jit(over_both)(seeds, strengths)
        for i, seed in enumerate(seeds):
            for j, strength in enumerate(strengths):
                expected, _ = one(seed, strength)
                here = jax.tree.map(lambda leaf, i=i, j=j: leaf[i, j], found)
                assert_close(
                    (here.state.params, here.best),
                    (expected.state.params, expected.best),
                    rtol=1e-4,
                    atol=1e-5,
                )
        ends = np.asarray(found.state.params["w"]).reshape(4, 3)
        assert len(np.unique(ends.round(4), axis=0)) == 4

    @pytest.mark.slow
    def test_observations(self):
        step = training.make_train_step(OBJECTIVES, transform(), strategy="pulls")
        loop = training.make_loop(
            step,
            sample,
            steps_per_call=4,
            observe=lambda state: (
                state.step,
                optax.tree.get(state.opt_state, "conflict_share"),
            ),
        )
        run, (infos, (number, share)) = jax.jit(loop)(started(0), DATA)
        assert infos.values.shape == (4, 3)
        np.testing.assert_array_equal(number, [1, 2, 3, 4])
        assert share.shape == (4,)
        # Without a score the latest parameters are kept.
        assert int(run.best.step) == 4
        assert_close(run.best.params, run.state.params)

    @pytest.mark.slow
    def test_donated_runs(self):
        """As the documentation says to compile it; the caller's arrays survive."""
        objectives = fairjax.cell_objectives(
            statistics, CELLS, OBJECTIVES.functions, decay=0.5
        )
        step = training.make_train_step(objectives, transform(), strategy="pulls")
        loop = training.make_loop(step, sample, steps_per_call=2, score=accuracy)
        loop = jax.jit(loop, donate_argnums=0)
        params = {"w": jnp.ones(3), "b": jnp.zeros(())}
        state = training.init_state(params, transform(), key=0, objectives=objectives)
        run = training.start(state)
        for _ in range(2):
            run, _ = loop(run, DATA)
        assert int(run.state.step) == 4
        np.testing.assert_array_equal(params["w"], np.ones(3))
        np.testing.assert_array_equal(
            state.key_data, jax.random.key_data(jax.random.key(0))
        )


class TestSelection:
    @pytest.mark.parametrize(
        ("scores", "step", "best"),
        [
            ([0.5, 0.7, 0.6], 2, 0.7),
            ([0.5, 0.7, 0.7], 2, 0.7),  # The earlier one on a tie.
            ([np.nan, 0.3, np.nan], 2, 0.3),
            ([0.3, np.nan, np.inf, 0.2], 1, 0.3),
            ([-5.0, -np.inf], 1, -5.0),
            ([np.nan, np.nan], 0, -np.inf),
        ],
    )
    def test_by_hand(self, scores, step, best):
        state = training.init_state(jnp.array(0.0), optax.sgd(0.1), key=0)
        kept = training.start(state).best
        for i, score in enumerate(scores, start=1):
            state = state._replace(params=jnp.array(float(i)), step=jnp.array(i))
            kept = training.keep_best(kept, jnp.array(score), state)
        np.testing.assert_allclose(kept.score, best)
        assert int(kept.step) == step
        assert float(kept.params) == step

    def test_the_best_of_a_run_is_kept(self):
        """w goes 0, 1, 2, …; the score is best at 2 and NaN from 4 on."""
        objective = fairjax.stack_objectives({"a": lambda w, b: -w})
        tx = optax.chain(fairjax.pcgrad(num_objectives=1), optax.sgd(1.0))
        loop = training.make_loop(
            training.make_train_step(objective, tx),
            lambda key, data: {},
            steps_per_call=1,
            score=lambda w, data: jnp.where(w < 4, -((w - data) ** 2), jnp.nan),
            observe=lambda state: state.step,
        )
        run = training.start(training.init_state(jnp.zeros(()), tx, key=0))
        loop = jax.jit(loop)
        for number in range(1, 7):
            run, (_, observed) = loop(run, jnp.array(2.2))
            np.testing.assert_array_equal(observed, [number])
        assert float(run.state.params) == 6
        assert float(run.best.params) == 2
        assert int(run.best.step) == 2
        np.testing.assert_allclose(run.best.score, -0.04, rtol=1e-4)


@pytest.mark.parametrize("rows", [0, 1, 4, 5, 8])
@pytest.mark.parametrize("outputs", [(), (2,)])
def test_evaluate_by_batches(rows, outputs):
    inputs = jnp.asarray(FEATURES[:rows])
    weights = jnp.asarray(RNG.normal(size=(3, *outputs)).astype(np.float32))
    found = training.evaluate(lambda w, x: x @ w, weights, inputs, batch_size=4)
    assert found.shape == (rows, *outputs)
    np.testing.assert_allclose(found, inputs @ weights, rtol=1e-5, atol=1e-6)


class TestDevices:
    """A batch that is sharded over eight devices: the same step, nothing gathered."""

    def mesh(self):
        return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def spread(self):
        mesh = self.mesh()
        state = training.init_state(PARAMS, transform(), key=0)
        state = jax.device_put(state, NamedSharding(mesh, P()))
        return state, jax.device_put(DATA, NamedSharding(mesh, P("data")))

    @pytest.mark.slow
    def test_same_parameters(self):
        state, batch = self.spread()
        alone = training.init_state(PARAMS, transform(), key=0)
        for _ in range(3):
            state, info = compiled_step()(state, batch)
            alone, expected = compiled_step()(alone, DATA)
            assert_close(info, expected)
        assert_close(state.params, alone.params, rtol=1e-4, atol=1e-5)
        assert state.params["w"].sharding.is_fully_replicated

    @pytest.mark.slow
    def test_batch_is_not_gathered(self):
        text = compiled_step().lower(*self.spread()).compile().as_text()
        assert "all-reduce" in text
        for gathering in ("all-gather", "all-to-all", "collective-permute"):
            assert gathering not in text
        # Each device works on its own 64/8 examples.
        assert "f32[8,3]" in text
        assert "f32[64,3]" not in text


# Two parabolas with different curvatures, whose gradients conflict between their ends.
PULLS = fairjax.stack_objectives(
    {
        "left": lambda w, batch: jnp.sum((w + 1.0) ** 2),
        "right": lambda w, batch: 3.0 * jnp.sum((w - 1.0) ** 2),
    }
)


class TestPartsOfOptax:
    """Transformations beside a reconciler, which ask for other arguments than it."""

    @pytest.mark.parametrize(
        ("transform", "leaf"),
        [
            (optax.adam(0.1), r"leaf \['a'\] has shape \(2, 3\)"),
            (
                optax.partition(
                    {
                        "train": fairjax.pcgrad(num_objectives=2),
                        "freeze": optax.set_to_zero(),
                    },
                    {"a": "train", "b": "freeze"},
                ),
                r"leaf \['b'\] has shape \(2, 3\)",
            ),
        ],
        ids=["no reconciler", "frozen"],
    )
    def test_stacked_updates_are_refused(self, transform, leaf):
        def objectives(params, batch):
            return jnp.stack([jnp.sum(x) for x in jax.tree.leaves(params)])

        params = {"a": jnp.ones(3), "b": jnp.ones(3)}
        state = training.init_state(params, transform, key=0)
        step = training.make_train_step(objectives, transform)
        with pytest.raises(ValueError, match=f"must return one update.*{leaf}"):
            jax.eval_shape(step, state, {})

    @pytest.mark.parametrize(
        "search",
        [
            optax.scale_by_backtracking_linesearch(max_backtracking_steps=15),
            pytest.param(
                optax.scale_by_zoom_linesearch(max_linesearch_steps=15),
                marks=pytest.mark.slow,
            ),
            # It asks for the value alone.
            pytest.param(optax.scale_by_polyak(1.5), marks=pytest.mark.slow),
        ],
        ids=["backtracking", "zoom", "polyak"],
    )
    def test_line_searches_lower_the_mean(self, search):
        """A whole step from w = 2 would end at 2 − 2 · 12: the search shortens it."""
        tx = optax.chain(fairjax.scalarize(num_objectives=2), optax.scale(-2.0), search)
        state = training.init_state(jnp.array([2.0]), tx, key=0)
        step = jax.jit(training.make_train_step(PULLS, tx))
        means = []
        for _ in range(20):
            state, info = step(state, {})
            means.append(float(info.values.mean()))
        assert means[0] == 6.0
        assert (np.diff(means) <= 0).all()
        # The mean, 2 w² − 2 w + 2, is lowest at 1/2, where it is 1.5.
        assert means[-1] < 1.6

    @pytest.mark.parametrize("other", [5.0, -5.0], ids=["finite", "nan"])
    def test_a_line_search_measures_the_objectives_that_are_not_masked(self, other):
        tx = optax.chain(
            fairjax.scalarize(num_objectives=2),
            optax.scale(-1.0),
            optax.scale_by_backtracking_linesearch(max_backtracking_steps=15),
        )
        state = training.init_state(jnp.array([2.0]), tx, key=0)
        both = {"left": PULLS.functions["left"]}
        both["right"] = lambda w, batch: jnp.sum(jnp.log(other - w))
        objectives = fairjax.stack_objectives(both)
        step = jax.jit(training.make_train_step(objectives, tx))
        for _ in range(20):
            state, _ = step(state, {"objective_mask": jnp.array([True, False])})
        np.testing.assert_allclose(state.params, [-1.0], atol=0.1)

    def test_sam_trains_where_it_is_wrapped(self):
        """A climb by .05 · 12 to 2.6, then a step of .1 by the gradient there, 16.8."""
        sam = optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05))
        tx = optax.chain(fairjax.scalarize(num_objectives=2), sam)
        state = training.init_state(jnp.array([2.0]), tx, key=0)
        step = training.make_train_step(PULLS, tx)
        with pytest.raises(TypeError, match="unexpected keyword argument") as caught:
            jax.eval_shape(step, state, {})
        assert "optax.GradientTransformation(part.init" in caught.value.__notes__[0]

        wrapped = optax.GradientTransformation(sam.init, sam.update)
        tx = optax.chain(fairjax.scalarize(num_objectives=2), wrapped)
        step = jax.jit(training.make_train_step(PULLS, tx))
        state, _ = step(state, {})
        np.testing.assert_allclose(state.params, [2.6], rtol=1e-6)
        state, _ = step(state, {})
        np.testing.assert_allclose(state.params, [0.32], rtol=1e-5)

    @pytest.mark.slow
    def test_float16_trains_with_scaled_losses(self):
        """Gradients of 1e-6 would be subnormal in float16, and are not where scaled."""
        scale = 2.0**14

        def objectives(w, batch):
            return 1e-6 * PULLS(w.astype(jnp.float32), batch) * scale

        def losses_after(dtype):
            tx = optax.chain(
                fairjax.pcgrad(num_objectives=2), optax.scale(-2e4 / scale)
            )
            state = training.init_state(jnp.array([2.0], dtype), tx, key=0)
            step = jax.jit(training.make_train_step(objectives, tx))
            for _ in range(20):
                state, _ = step(state, {})
            return PULLS(state.params.astype(jnp.float32), {})

        found = losses_after(jnp.float16)
        np.testing.assert_allclose(found, losses_after(jnp.float32), rtol=0.01)
        assert (found < jnp.array([4.0, 0.1])).all()

    def test_without_a_finite_objective_the_parameters_stay(self):
        tx = optax.chain(
            fairjax.pcgrad(num_objectives=2), optax.adamw(0.1, weight_decay=0.5)
        )
        step = jax.jit(training.make_train_step(lambda w, b: w + b["x"], tx))
        state = training.init_state(jnp.ones(2), tx, key=0)
        stays, info = step(state, {"x": jnp.full(2, jnp.nan)})
        np.testing.assert_array_equal(stays.params, state.params)
        assert not bool(info.finite)
        batch = {"x": jnp.array([jnp.nan, 1.0]), "objective_mask": jnp.arange(2) < 1}
        stays, info = step(state, batch)
        np.testing.assert_array_equal(stays.params, state.params)
        assert not bool(info.finite)
        # Finite values whose gradients are not.
        roots = training.make_train_step(lambda w, b: jnp.sqrt(w * b["x"]), tx)
        stays, info = jax.jit(roots)(state, {"x": jnp.zeros(2)})
        np.testing.assert_array_equal(stays.params, state.params)
        assert (info.values == 0).all()
        assert not bool(info.finite)
        moves, info = step(state, {"x": jnp.array([jnp.nan, 1.0])})
        assert (moves.params != state.params).all()
        assert bool(info.finite)


@pytest.mark.usefixtures("untyped")
def test_what_does_not_fit_is_an_error():
    transform = optax.chain(fairjax.mgda(num_objectives=2), optax.sgd(0.1))
    cells = fairjax.partition({"sex": ["f", "m"]})
    risks = fairjax.losses.group_risks(cells, "sex")
    objectives = fairjax.cell_objectives(
        lambda w, b: {"loss": w}, cells, risks, decay=0.5
    )
    state = training.init_state(jnp.ones(2), transform, key=0)
    step = training.make_train_step(objectives, transform)
    with pytest.raises(ValueError, match="running means.*Pass objectives= to"):
        step(state, {"cells": jnp.arange(2)})
    with pytest.raises(ValueError, match="got a step.*fairjax.reconcile"):
        training.make_train_step(objectives, fairjax.steps.mgda())
    with pytest.raises(ValueError, match="data_axis='data' must come with a mesh"):
        training.make_train_step(objectives, transform, data_axis="data")


@pytest.mark.usefixtures("untyped")
def test_a_batch_may_be_any_tree():
    transform = optax.chain(fairjax.mgda(num_objectives=2), optax.sgd(0.1))
    step = training.make_train_step(lambda w, batch: w * batch[0], transform)
    state = training.init_state(jnp.ones(2), transform, key=0)
    values = step(state, (jnp.array([2.0, 3.0]),))[1].values
    np.testing.assert_array_equal(values, [2, 3])
