"""Accumulating rows, labelling parts, and transforming each row by itself."""

import functools
from typing import ClassVar

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fairjax


def accumulator(every=2, size=2, inner=None):
    inner = inner or fairjax.scalarize(num_objectives=size)
    return fairjax.accumulate(inner, every=every, num_objectives=size)


EVERY_THIRD = accumulator(every=3)
update_every_third = jax.jit(EVERY_THIRD.update)


class TestAccumulate:
    def test_by_hand(self):
        """The mean rows (1, 0) and (−1, −1), reconciled."""
        transform = accumulator(inner=fairjax.pcgrad(num_objectives=2))
        update = jax.jit(transform.update)
        state = transform.init(jnp.zeros(2))
        calls = (
            ([[3.0, 0], [0, 0]], [0, 0]),
            ([[-1.0, 0], [-2, -2]], [0.5, -1.5]),
            ([[1.0, 0], [0, 0]], [0, 0]),
            ([[1.0, 0], [0, 0]], [1, 0]),
        )
        for rows, expected in calls:
            found, state = update(jnp.array(rows), state)
            np.testing.assert_allclose(found, expected, atol=1e-6)

    @pytest.mark.slow
    def test_it_is_not_the_mean_of_updates(self):
        rows = jnp.array([[[1.0, 0], [-1, -1]], [[-1.0, 0], [1, 1]]])
        whole = accumulator(inner=fairjax.pcgrad(num_objectives=2))
        update = jax.jit(whole.update)
        state = whole.init(jnp.zeros(2))
        for one in rows:
            found, state = update(one, state)
        np.testing.assert_array_equal(found, [0, 0])
        each = fairjax.pcgrad(num_objectives=2, order="numbered")
        alone = [each.update(one, each.init(None))[0] for one in rows]
        assert np.allclose(sum(alone), 0)
        # And where the noise is not symmetric they differ.
        rows = jnp.array([[[1.0, 0], [-1, -1]], [[0.0, 3], [1, 1]]])
        state = whole.init(jnp.zeros(2))
        for one in rows:
            found, state = update(one, state)
        alone = [each.update(one, each.init(None))[0] for one in rows]
        assert not np.allclose(found, sum(alone) / 2)

    @hypothesis.given(
        hnp.arrays(np.float32, (3, 2, 4), elements=st.integers(-8, 8)),
        hnp.arrays(bool, (3, 2)),
    )
    def test_means_over_the_calls_that_took_part(self, rows, present):
        state = EVERY_THIRD.init(jnp.zeros(4))
        for one, mask in zip(rows, present, strict=True):
            found, state = update_every_third(one, state, mask=mask)
        counts = np.maximum(present.sum(axis=0), 1)
        means = (rows * present[..., None]).sum(axis=0) / counts[:, None]
        np.testing.assert_allclose(found, means.sum(axis=0), rtol=1e-5, atol=1e-5)

    def test_rows_and_losses_that_are_not_finite(self):
        transform = accumulator(inner=fairjax.famo(num_objectives=2))
        state = transform.init(jnp.zeros(2))
        nan = np.nan
        calls = (
            ([[nan, 0], [0, 1.0]], [1.0, 2.0]),
            ([[4.0, 0], [0, 3.0]], [1.0, nan]),
        )
        update = jax.jit(transform.update)
        for rows, values in calls:
            found, state = update(np.array(rows), state, losses=np.array(values))
        # FAMO weighs by 1/1 and 1/2, to a sum of 1.
        np.testing.assert_allclose(found, [4 * 2 / 3, 1 / 3], rtol=1e-5)
        np.testing.assert_array_equal(state.skipped, [1, 1])
        np.testing.assert_array_equal(optax.tree.get(state, "nonfinite"), [0, 0])

    def test_an_objective_that_never_took_part(self):
        transform = accumulator()
        state = transform.init(jnp.zeros(2))
        mask = np.array([True, False])
        update = jax.jit(transform.update)
        for _ in range(2):
            found, state = update(np.full((2, 2), 3.0, np.float32), state, mask=mask)
        np.testing.assert_array_equal(found, [3, 3])
        np.testing.assert_array_equal(state.inner.weights, [1, 0])

    @pytest.mark.slow
    def test_sums_of_bfloat16_rows_are_wide(self):
        """259 / 4 is 65 to the nearest; in bfloat16, 256 and 1 add up to 256 again."""
        transform = accumulator(every=4, size=1)
        state = transform.init(jnp.zeros(1, jnp.bfloat16))
        for value in (256.0, 1, 1, 1):
            found, state = transform.update(
                jnp.full((1, 1), value, jnp.bfloat16), state
            )
        assert found.dtype == jnp.bfloat16
        np.testing.assert_array_equal(found.astype(float), [65])

    def test_scan(self):
        transform = accumulator(every=2)
        rows = jnp.arange(16.0).reshape(4, 2, 2)

        def one(state, rows):
            found, state = transform.update(rows, state)
            return state, found

        _, found = jax.lax.scan(one, transform.init(jnp.zeros(2)), rows)
        sums = rows.sum(axis=1)
        np.testing.assert_allclose(found[1], (sums[0] + sums[1]) / 2)
        np.testing.assert_allclose(found[3], (sums[2] + sums[3]) / 2)
        np.testing.assert_array_equal(found[jnp.array([0, 2])], 0)

    def test_bad_arguments(self, untyped):
        with pytest.raises(ValueError, match="every must be at least 1; got 0"):
            accumulator(every=0)
        with pytest.raises(
            ValueError, match="every must be a static Python int, .*static_args"
        ):
            accumulator(every=jnp.array(2))
        transform = accumulator()
        with pytest.raises(ValueError, match="accumulate was made for 2 objectives"):
            transform.update(jnp.ones((3, 2)), transform.init(jnp.zeros(2)))


class TestPerObjective:
    def test_noise_differs_from_row_to_row(self):
        """Were the key shared, noise would be the same in all rows."""
        noise = optax.add_noise(eta=1.0, gamma=0.5, key=0)
        transform = fairjax.per_objective(noise, num_objectives=3)
        state = transform.init(jnp.zeros(2000))
        update = jax.jit(transform.update)
        found, state = update(np.zeros((3, 2000), np.float32), state)
        cosines = np.corrcoef(found) - np.eye(3)
        assert np.abs(cosines).max() < 0.1
        other, _ = update(np.zeros((3, 2000), np.float32), state)
        assert abs(np.corrcoef(found[0], other[0])[0, 1]) < 0.1

    def test_raw_keys_of_a_state_differ_too(self):
        drop = fairjax.graddrop(num_objectives=1)
        transform = fairjax.per_objective(drop, num_objectives=2)
        keys = transform.init(jnp.zeros(2)).key_data
        assert not np.array_equal(keys[0], keys[1])


PARAMS = {"trunk": {"w": jnp.zeros((2, 2)), "b": jnp.zeros(2)}, "head": jnp.zeros(3)}


class TestPerLabel:
    TRANSFORMS: ClassVar = {
        "shared": fairjax.pcgrad(num_objectives=2),
        "own": fairjax.scalarize(num_objectives=2),
    }

    def make(self, labels):
        return fairjax.per_label(self.TRANSFORMS, labels)

    @pytest.mark.parametrize(
        "labels",
        [
            {"trunk": "shared", "head": "own"},
            {"trunk": {"w": "shared", "b": "shared"}, "head": "own"},
            lambda params: {
                name: "own" if name == "head" else "shared" for name in params
            },
        ],
    )
    def test_labels(self, labels):
        rng = np.random.default_rng(0)
        rows = jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=(2, *leaf.shape)), jnp.float32),
            PARAMS,
        )
        transform = self.make(labels)
        found, _ = transform.update(rows, transform.init(PARAMS), PARAMS)
        shared = self.TRANSFORMS["shared"]
        trunk, _ = shared.update(rows["trunk"], shared.init(None))
        np.testing.assert_allclose(found["trunk"]["w"], trunk["w"], rtol=1e-5)
        np.testing.assert_allclose(found["head"], rows["head"].sum(axis=0), rtol=1e-5)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (
                {"trunk": {"w": "shared"}, "head": "own"},
                r"labels have none for parameter \['trunk'\]\['b'\] of shape \(2,\)",
            ),
            ({"trunk": "shared"}, r"none for parameter \['head'\] of shape \(3,\)"),
            (
                {"trunk": "shared", "head": "heads"},
                r"parameter \['head'\] of shape \(3,\) has the label 'heads'.*'own'",
            ),
            (
                {"trunk": "shared", "head": "own", "tail": "own"},
                r"label 'own' at \['tail'\] has no parameter",
            ),
        ],
    )
    def test_errors_name_the_parameter(self, labels, message):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(self.make(labels).init, PARAMS)


def test_a_part_that_stays_stacked():
    transform = fairjax.per_label(
        {"shared": fairjax.pcgrad(num_objectives=2), "frozen": optax.set_to_zero()},
        {"trunk": "shared", "head": "frozen"},
    )
    rows = jax.tree.map(lambda leaf: jnp.ones((2, *leaf.shape)), PARAMS)
    message = r"\['head'\] leaves the shape \(2, 3\) of stacked gradients \(2, 3\)"
    with pytest.raises(ValueError, match=message):
        transform.update(rows, transform.init(PARAMS), PARAMS)


def test_whole_numbers_with_injected_settings(untyped):
    """An integer that shapes depend on cannot be injected; the error says so."""
    transform = optax.inject_hyperparams(fairjax.pcgrad)(num_objectives=2)
    with pytest.raises(
        ValueError, match=r"num_objectives must be a static Python int, .*static_args"
    ):
        transform.init(jnp.zeros(2))
    static = ("num_objectives",)
    transform = optax.inject_hyperparams(fairjax.dwa, static_args=static)(
        num_objectives=2
    )
    with pytest.raises(
        ValueError, match=r"every must be a static Python int, .*static_args"
    ):
        transform.init(jnp.zeros(2))
    for bad in (0, -1, True, 2.0):
        for make in (fairjax.mgda, fairjax.graddrop):
            with pytest.raises(ValueError, match="num_objectives must be"):
                make(num_objectives=bad)
    with pytest.raises(ValueError, match="reference must be at least 0; got -1"):
        fairjax.positive_sum(num_objectives=2, reference=-1)
    each = functools.partial(fairjax.per_objective, optax.scale(1.0))
    with pytest.raises(ValueError, match="num_objectives must be at least 1; got 0"):
        each(num_objectives=0)
