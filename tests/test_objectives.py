"""Objectives over cell means: values, weights, masks, running means, errors."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import fairjax
from fairjax import losses

CELLS = fairjax.partition({"sex": ["f", "m", "f"], "died": [0, 1, 1]})
# Cells: f0, f1, m0, m1, of 1, 1, 0 and 1 rows.


def statistics(w, batch):
    return {"loss": (w - batch["x"]) ** 2, "score": w * batch["x"]}


FUNCTIONS = {
    "task": losses.task(CELLS),
    "men": losses.group_risk(CELLS, "sex", "m"),
    "gap": losses.demographic_parity(CELLS, "sex"),
}
make = functools.partial(fairjax.cell_objectives, statistics, CELLS, FUNCTIONS)
BATCH = {"x": jnp.array([1.0, 2.0, 3.0, 5.0]), "cells": jnp.array([0, 1, 3, 3])}
# At w = 2: losses 1 0 1 9, scores 2 4 6 10; women 3, men 8, all 5.5.
VALUES = [11 / 4, 5, 2.5]


@functools.cache
def pulled_rows():
    run = jax.jit(fairjax.value_and_jacobian(make(), strategy="pulls"))
    return lambda w, batch: run(w, batch)[1]


def close(found, expected, **options):
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6, **options)


class TestValues:
    def test_by_hand(self):
        objectives = make()
        assert objectives.names == ("task", "men", "gap")
        assert objectives.num_objectives == 3
        assert objectives.statistics == ("loss", "score")
        close(objectives(jnp.array(2.0), BATCH), VALUES)
        close(objectives.cell_shares, [1 / 3, 1 / 3, 0, 1 / 3])

    @pytest.mark.parametrize(
        "weights",
        [
            jnp.array([1.0, 2.0, 3.0, 0.0]),
            jnp.array([1, 2, 3, 0]),
            np.array([1, 2, 3, 0]),
        ],
        ids=["float", "int", "numpy"],
    )
    def test_weights(self, weights):
        # Losses (1 + 3)/6, men 1; women (2 + 8)/3, men 6, all 28/6.
        found = make()(jnp.array(2.0), {**BATCH, "weights": weights})
        close(found, [4 / 6, 1, ((28 / 6 - 10 / 3) + (6 - 28 / 6)) / 2])

    @pytest.mark.parametrize(
        "bad", [np.nan, np.inf, pytest.param(7.0, marks=pytest.mark.slow)]
    )
    @pytest.mark.parametrize("out", ["mask", "weights", "cells"])
    def test_padding_may_hold_anything(self, out, bad):
        batch = {
            "x": jnp.array([1.0, 2.0, 3.0, 5.0, bad]),
            "cells": jnp.array([0, 1, 3, 3, 2]),
        }
        if out == "mask":
            batch["mask"] = jnp.arange(5) < 4
        elif out == "weights":
            batch["weights"] = (jnp.arange(5) < 4).astype(jnp.float32)
        else:
            batch["cells"] = batch["cells"].at[4].set(-1)
        objectives, w = make(), jnp.array(2.0)
        close(objectives(w, batch), VALUES)
        if not np.isfinite(bad):
            return
        close(pulled_rows()(w, batch), pulled_rows()(w, BATCH))

    def test_mask_and_weights_together(self):
        batch = {
            "x": jnp.array([1.0, 2.0, 3.0, 5.0, 9.0]),
            "cells": jnp.array([0, 1, 3, 3, 2]),
            "weights": jnp.array([1.0, 2.0, 3.0, 0.0, 4.0]),
            "mask": jnp.array([True, True, True, True, False]),
        }
        without = {**BATCH, "weights": batch["weights"][:4]}
        close(make()(jnp.array(2.0), batch), make()(jnp.array(2.0), without))

    def test_empty_batch_group(self):
        batch = {"x": BATCH["x"][:2], "cells": BATCH["cells"][:2]}
        close(jax.jit(make())(jnp.array(2.0), batch), [0.5, 0, 0])
        jacobian = jax.jit(jax.jacrev(make()))(jnp.array(2.0), batch)
        close(jacobian, [1, 0, 0])

    def test_jacobian_by_hand(self):
        # d/dw: losses 2(w − x): 2, 0, −2, −6; scores x: women 1.5, men 4.
        found = jax.jacrev(make())(jnp.array(2.0), BATCH)
        close(found, [-6 / 4, -4, 1.25])

    def test_bfloat16_is_summed_in_float32(self):
        functions = {"task": losses.task(CELLS)}
        objectives = fairjax.cell_objectives(
            lambda w, batch: {"loss": batch["x"]}, CELLS, functions
        )
        batch = {"x": jnp.ones(1000, jnp.bfloat16), "cells": jnp.zeros(1000, jnp.int32)}
        found = objectives(jnp.array(0.0), batch)
        assert found.dtype == jnp.float32
        close(found, [1])

    @pytest.mark.slow
    def test_over_a_mapped_axis(self):
        """Shards' cells are summed before any mean is taken."""
        objectives = make(axis_name="data")
        mesh = jax.make_mesh((2,), ("data",))
        run = jax.shard_map(
            lambda batch: objectives(jnp.array(2.0), batch),
            mesh=mesh,
            in_specs=P("data"),
            out_specs=P(),
        )
        batch = jax.device_put(BATCH, NamedSharding(mesh, P("data")))
        close(jax.jit(run)(batch), VALUES)
        halves = jax.tree.map(lambda leaf: leaf.reshape(2, 2), BATCH)
        mapped = jax.jit(jax.vmap(objectives, in_axes=(None, 0), axis_name="data"))
        close(mapped(jnp.array(2.0), halves), [VALUES, VALUES])


FIRST = {"x": jnp.array([1.0, 3.0]), "cells": jnp.array([0, 0])}
SECOND = {"x": jnp.array([5.0, 2.0]), "cells": jnp.array([0, 3])}


class TestRunningMeans:
    """Decay ¾: the weights of the last two batches are 3/16 and 1/4, of 7/16."""

    W = jnp.array(2.0)

    def run(self, *batches):
        objectives = make(decay=0.75)
        running = objectives.init_running()
        for batch in batches:
            values, running = objectives(self.W, batch, running)
        return values, running

    def test_first_batch_is_not_biased_to_zero(self):
        values, running = self.run(BATCH)
        close(values, VALUES)
        close(running.total, 0.25)
        close(running.counts, [0.25, 0.25, 0, 0.5])

    def test_values_by_hand(self):
        values, running = self.run(FIRST, SECOND)
        # Losses: first 1, 1 in cell 0; second 9 in cell 0, 0 in cell 3.
        close(running.sums["loss"], [3 / 16 * 2 + 1 / 4 * 9, 0, 0, 0])
        close(running.counts, [3 / 16 * 2 + 1 / 4, 0, 0, 1 / 4])
        close(running.total, 7 / 16)
        # Scores: women 3/16·8 + 1/4·10, men 1/4·4.
        women, men = 4 / (5 / 8), 1 / (1 / 4)
        everyone = 5 / (7 / 8)
        gap = (abs(women - everyone) + abs(men - everyone)) / 2
        close(values, [2.625 / 0.875, 0, gap])

    def test_gradient_by_hand(self):
        """F'(m̂) times the batch's sums' derivative, over the averaged counts."""
        objectives = make(decay=0.75)
        _, running = self.run(FIRST)
        found, _ = jax.jacrev(objectives, has_aux=True)(self.W, SECOND, running)
        # Averaged counts: cells (5/8, 0, 0, 1/4)/(7/16) = (10/7, 0, 0, 4/7), 2 in all.
        # Second batch: loss' = 2(w − x): −6 in cell 0, 0 in cell 3; score' = x: 5, 2.
        means = np.array([5 / (10 / 7), 2 / (4 / 7)])
        weights = np.array([10 / 7, 4 / 7])
        task = -6 / (10 / 7) * weights[0] / 2
        overall = means @ weights / 2
        # Women lie above everyone, men below.
        gap = ((means[0] - overall) - (means[1] - overall)) / 2
        close(found, [task, 0, gap])

    @pytest.mark.parametrize(
        "strategy",
        [
            "pulls",
            *(pytest.param(s, marks=pytest.mark.slow) for s in ("jacrev", "map")),
        ],
    )
    def test_gradient_by_every_strategy(self, strategy):
        objectives = make(decay=0.75)
        _, running = self.run(FIRST)
        expected, state = jax.jacrev(objectives, has_aux=True)(self.W, SECOND, running)
        run = fairjax.value_and_jacobian(objectives, strategy=strategy, has_aux=True)
        (values, new), found = jax.jit(run)(self.W, SECOND, running)
        close(found, expected)
        close(values, self.run(FIRST, SECOND)[0])
        jax.tree.map(close, new, state)

    def test_decay_zero_is_the_batch_alone(self):
        objectives = make(decay=0.0)
        _, running = objectives(self.W, FIRST, objectives.init_running())
        for fresh in (objectives.init_running(), running):
            values, _ = objectives(self.W, BATCH, fresh)
            close(values, VALUES)
            found, _ = jax.jacrev(objectives, has_aux=True)(self.W, BATCH, fresh)
            close(found, jax.jacrev(make())(self.W, BATCH))

    @pytest.mark.slow
    def test_same_batch_again_and_again(self):
        """Nothing moves: values and gradient stay those of the batch."""
        objectives = make(decay=0.9)
        running = objectives.init_running()
        differentiate = jax.jit(jax.jacrev(objectives, has_aux=True))
        expected = jax.jit(jax.jacrev(make()))(self.W, BATCH)
        for _ in range(5):
            values, _ = objectives(self.W, BATCH, running)
            gradient, running = differentiate(self.W, BATCH, running)
            close(values, VALUES)
            close(gradient, expected)

    def test_averaged_sums_are_unbiased(self):
        """Their mean over all sequences of draws is the draws' own mean."""
        batches = (FIRST, SECOND)
        sequences = itertools.product(batches, repeat=3)
        states = [self.run(*sequence)[1] for sequence in sequences]
        mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *states)
        objectives = make()
        sums = [
            objectives.cell_sums(objectives.per_example(self.W, batch), batch)
            for batch in batches
        ]
        expected = jax.tree.map(lambda a, b: (a + b) / 2, *sums)
        for name in objectives.statistics:
            close(mean.sums[name] / mean.total, expected.sums[name])
        close(mean.counts / mean.total, expected.counts)

    def test_cell_that_the_batch_lacks_keeps_its_mean_without_gradient(self):
        objectives = make(decay=0.75)
        batch = {"x": jnp.array([1.0]), "cells": jnp.array([0])}
        _, running = objectives(self.W, BATCH, objectives.init_running())
        values, _ = jax.jit(objectives)(self.W, batch, running)
        close(values[1], 5)  # The men's loss, from the batch before.
        differentiate = jax.jit(jax.jacrev(objectives, has_aux=True))
        gradient, _ = differentiate(self.W, batch, running)
        assert float(gradient[1]) == 0

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_cell_that_is_not_finite_counts_as_empty_in_that_batch(self, bad):
        objectives = make(decay=0.75)
        _, before = objectives(self.W, BATCH, objectives.init_running())
        batch = {**BATCH, "x": BATCH["x"].at[0].set(bad)}  # A woman of the first cell.
        values, running = objectives(self.W, batch, before)
        assert np.isfinite(values).tolist() == [False, True, False]
        without = {**BATCH, "mask": jnp.array([False, True, True, True])}
        expected = objectives(self.W, without, before)[1]
        jax.tree.map(close, running, expected)
        # And the next batch is whole again.
        values, _ = objectives(self.W, BATCH, running)
        close(values, objectives(self.W, BATCH, expected)[0])
        assert np.isfinite(values).all()

    @pytest.mark.slow
    def test_decay_may_be_traced(self):
        def values(decay):
            objectives = make(decay=decay)
            running = objectives.init_running()
            _, running = objectives(self.W, BATCH, running)
            return objectives(jnp.array(3.0), BATCH, running)[0]

        decays = jnp.array([0.0, 0.5, 0.9])
        close(jax.jit(jax.vmap(values))(decays), [values(float(d)) for d in decays])

    def test_wrong_call(self):
        with pytest.raises(ValueError, match="are called with running means"):
            make(decay=0.5)(self.W, BATCH)
        with pytest.raises(ValueError, match="objectives without a decay are not"):
            make()(self.W, BATCH, make(decay=0.5).init_running())


class TestErrors:
    def test_no_functions(self):
        with pytest.raises(ValueError, match="at least one function"):
            fairjax.cell_objectives(statistics, CELLS, {})
        with pytest.raises(ValueError, match="at least one function"):
            fairjax.stack_objectives({})

    def test_function_for_other_cells(self):
        other = fairjax.partition({"sex": ["f", "m"]})
        with pytest.raises(ValueError, match="'task' was made for 2 cells; .* has 4"):
            fairjax.cell_objectives(statistics, CELLS, {"task": losses.task(other)})

    @pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5])
    def test_decay(self, decay):
        with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\)"):
            make(decay=decay)

    def test_batch_without_cells(self):
        with pytest.raises(ValueError, match="no 'cells'"):
            make()(jnp.array(2.0), {"x": BATCH["x"]})

    @pytest.mark.parametrize("name", ["weights", "mask"])
    def test_weights_of_another_shape(self, name):
        batch = {**BATCH, name: jnp.ones(3, bool)}
        with pytest.raises(ValueError, match=rf"'{name}'\] has shape \(3,\); .*\(4,\)"):
            make()(jnp.array(2.0), batch)

    def test_statistic_that_is_missing(self):
        objectives = dataclasses.replace(
            make(), statistics_fn=lambda w, batch: {"loss": batch["x"]}
        )
        with pytest.raises(ValueError, match="must return 'score', .*; got 'loss'"):
            objectives(jnp.array(2.0), BATCH)

    @pytest.mark.parametrize("shape", [(), (4, 1), (3,)])
    def test_statistic_that_is_not_one_an_example(self, shape):
        objectives = dataclasses.replace(
            make(),
            statistics_fn=lambda w, batch: {
                "loss": jnp.zeros(shape),
                "score": batch["x"],
            },
        )
        with pytest.raises(ValueError, match=r"'loss' has shape .* shape \(4,\)"):
            objectives(jnp.array(2.0), BATCH)


def test_stacked_objectives():
    both = fairjax.stack_objectives(
        {"a": lambda w, x: jnp.sum(w * x), "b": lambda w, x: jnp.sum(w**2)}
    )
    assert both.names == ("a", "b")
    assert both.num_objectives == 2
    w, x = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])
    close(both(w, x), [11, 5])
    close(jax.jacrev(both)(w, x), [[3, 4], [2, 4]])


@pytest.mark.parametrize(
    ("value", "shapes"),
    [(jnp.ones(3), r"\(3,\)"), ((jnp.ones(()), {}), r"\(\(\), {}\)")],
)
def test_stacked_objectives_are_numbers(value, shapes):
    both = fairjax.stack_objectives({"a": lambda w: w, "b": lambda w: value})
    with pytest.raises(
        ValueError, match=f"'b' must return one number; got .* {shapes}"
    ):
        both(jnp.ones(()))


def test_statistics_are_a_dict():
    objectives = dataclasses.replace(
        make(), statistics_fn=lambda w, batch: ({"loss": batch["x"]}, {})
    )
    with pytest.raises(ValueError, match="must return a dict .*; got tuple"):
        objectives(jnp.array(2.0), BATCH)


def test_negative_weights():
    with pytest.raises(ValueError, match=r"weights must be 0 or more; got -1\.0"):
        make()(jnp.array(2.0), BATCH | {"weights": jnp.array([1.0, -1, 0, 2])})
    padded = {"weights": jnp.array([1.0, -1, 0, 2]), "mask": jnp.arange(4) != 1}
    assert jnp.isfinite(make()(jnp.array(2.0), BATCH | padded)).all()
    traced = jax.jit(
        lambda weights: make()(jnp.array(2.0), BATCH | {"weights": weights})
    )
    assert jnp.isnan(traced(jnp.array([1.0, -1, 0, 2]))).any()


def test_cells_that_are_no_integers():
    with pytest.raises(ValueError, match="must hold integers.*got float32"):
        make()(jnp.array(2.0), BATCH | {"cells": jnp.zeros(4)})
