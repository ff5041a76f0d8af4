"""Steps that weigh objectives by their losses, by hand over several updates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fairjax
from fairjax import steps

TWO = jnp.eye(2)
STEPS = {
    "group_dro": steps.group_dro(0.1),
    "dwa": steps.dwa(),
    "uncertainty_weighting": steps.uncertainty_weighting(),
    "famo": steps.famo(),
    "geometric_mean": steps.geometric_mean(),
    "imtl_l": steps.imtl_l(),
    "stch": steps.stch(),
    "gradnorm": steps.gradnorm(),
}


compiled = functools.cache(lambda step: jax.jit(step.update))


def follow(step, losses, gram=TWO, masks=None):
    """The weights of each update, and the last state."""
    state, weights = step.init(len(gram)), []
    masks = [None] * len(losses) if masks is None else masks
    for values, mask in zip(losses, masks, strict=True):
        row, state = compiled(step)(
            jnp.eye(len(gram)),
            gram,
            state,
            losses=jnp.array(values),
            mask=None if mask is None else jnp.array(mask),
        )
        weights.append(row[0])
    return np.stack(weights), state


@pytest.mark.parametrize("name", STEPS)
def test_losses_are_needed_one_a_row(name):
    step = STEPS[name]
    with pytest.raises(ValueError, match=f"{name} needs the losses"):
        step.update(TWO, TWO, step.init(2))
    with pytest.raises(ValueError, match="2 rows, losses of shape"):
        step.update(jnp.ones((2, 3)), jnp.eye(3), step.init(2), losses=jnp.ones(3))


@pytest.mark.parametrize("name", STEPS)
def test_an_absent_objective_adds_nothing_and_spreads_nothing(name):
    step = STEPS[name]
    mask = [True, True, False]
    losses = [[1.0, 2.0, 1e30], [0.5, 2.0, 3.0], [0.4, 1.0, np.inf]]
    gram = jnp.diag(jnp.array([1.0, 4.0, 9.0]))
    three, state = follow(step, losses, gram, [mask] * 3)
    scale = 2 / 3 if name == "group_dro" else 1.0  # Of its own first third.
    two, _ = follow(step, [row[:2] for row in losses], gram[:2, :2])
    np.testing.assert_allclose(three[:, :2], two * scale, rtol=1e-5)
    np.testing.assert_array_equal(three[:, 2], 0)
    assert all(
        np.isfinite(leaf[:2]).all() for leaf in jax.tree.leaves(state) if leaf.ndim
    )


@pytest.mark.parametrize("name", STEPS)
def test_a_loss_that_is_not_finite_does_no_harm(name):
    weights, _ = follow(STEPS[name], [[1.0, 2.0], [np.nan, 2.0], [0.5, 1.0]])
    assert np.isfinite(weights).all()
    assert weights[1, 0] == 0
    assert (weights[2] > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_steps_compile_and_scan(name):
    transform = fairjax.reconcile(STEPS[name], num_objectives=2)
    rows = jnp.array([[1.0, 0.0], [0.0, 2.0]])
    losses = jnp.array([[1.0, 2.0], [0.9, 1.0], [0.8, 0.9]])

    def update(state, values):
        found, state = transform.update(rows, state, losses=values)
        return state, found

    state = transform.init(jnp.zeros(2))
    _, scanned = jax.lax.scan(update, state, losses)
    for values, found in zip(losses, scanned, strict=True):
        state, alone = update(state, values)
        np.testing.assert_allclose(found, alone, rtol=1e-4)


class TestGroupDRO:
    def test_by_hand_over_two_updates(self):
        """Step ln 2: weights 1/3 grow by 2^loss, then the second group is absent."""
        weights, state = follow(
            steps.group_dro(float(np.log(2.0))),
            [[0.0, 1.0, 2.0], [1.0, 50.0, 0.0]],
            jnp.eye(3),
            [None, [True, False, True]],
        )
        np.testing.assert_allclose(weights[0], [1 / 7, 2 / 7, 4 / 7], rtol=1e-6)
        # Of the 5/7 present, shares 2 and 4 to one; the absent one keeps its 2/7.
        np.testing.assert_allclose(weights[1], [5 / 21, 0, 10 / 21], rtol=1e-6)
        np.testing.assert_allclose(state.shares, [5 / 21, 6 / 21, 10 / 21], rtol=1e-6)

    def test_combines_rows(self):
        step = steps.group_dro(0.0)
        rows = jnp.array([[1.0, 2.0], [3.0, 4.0]])
        found, _ = step.update(rows, jnp.eye(2), step.init(2), losses=jnp.zeros(2))
        np.testing.assert_allclose(found, [[2.0, 3.0]])
        with pytest.raises(ValueError, match="step_size must be 0 or more; got -1"):
            steps.group_dro(-1.0)

    def test_great_losses_do_not_overflow(self):
        weights, _ = follow(steps.group_dro(1.0), [[1000.0, 1001.0]])
        np.testing.assert_allclose(weights[0, 1] / weights[0, 0], np.e, rtol=1e-4)


class TestDWA:
    @pytest.mark.parametrize("unit", [1.0, 0.01])
    def test_epochs_of_two_updates_by_hand(self, unit):
        # Means 2 and 2; then 1 and 2: ratios ½ and 1, in any unit.
        losses = [
            [3.0, 1.0],
            [1.0, 3.0],
            [1.5, 2.0],
            [0.5, 2.0],
            [9.0, 9.0],
            [9.0, 9.0],
        ]
        losses = (unit * np.array(losses)).tolist()
        weights, state = follow(steps.dwa(every=2), losses)
        np.testing.assert_allclose(weights[:4], 1, rtol=1e-6)
        shares = np.exp([0.25, 0.5])
        np.testing.assert_allclose(
            weights[4:], [2 * shares / shares.sum()] * 2, rtol=1e-5
        )
        np.testing.assert_allclose(state.last, [9 * unit, 9 * unit], rtol=1e-6)
        np.testing.assert_allclose(state.before, [unit, 2 * unit], rtol=1e-6)

    def test_a_period_without_an_objective_keeps_its_means(self):
        absent = [True, False]
        _, state = follow(
            steps.dwa(),
            [[2.0, 4.0], [1.0, 3.0], [1.0, 9.0]],
            masks=[None, None, absent],
        )
        np.testing.assert_allclose(state.last, [1, 3])
        np.testing.assert_allclose(state.before, [1, 4])

    def test_bad_options(self):
        with pytest.raises(ValueError, match="every must be at least 1; got 0"):
            steps.dwa(every=0)
        with pytest.raises(ValueError, match="temperature must be positive; got 0"):
            steps.dwa(temperature=0.0)


class TestUncertaintyWeighting:
    @pytest.mark.parametrize(
        ("likelihood", "c"), [("classification", 1), ("regression", 0.5)]
    )
    def test_log_variances_descend_the_published_objective(self, likelihood, c):
        step = steps.uncertainty_weighting(learning_rate=0.1, likelihood=likelihood)
        losses = np.array([[0.5, 2.0], [0.4, 3.0], [0.3, 1.0]], np.float32)
        weights, state = follow(step, losses)

        def objective(s, values):
            return jnp.sum(c * jnp.exp(-s) * values + s / 2)

        s = jnp.zeros(2)
        for row, values in zip(weights, losses, strict=True):
            np.testing.assert_allclose(row, c * np.exp(-s), rtol=1e-5)
            s -= 0.1 * jax.grad(objective)(s, values)
        np.testing.assert_allclose(state.log_variances, s, rtol=1e-5)

    def test_it_settles_at_the_losses(self):
        """e^s = 2 ℓ for classification: the weight is the inverse of twice the loss."""
        step = steps.uncertainty_weighting(learning_rate=0.5)
        weights, _ = follow(step, [[0.5, 0.8]] * 100)
        np.testing.assert_allclose(weights[-1], [1, 0.625], rtol=1e-3)
        with pytest.raises(ValueError, match="learning_rate must be 0 or more"):
            steps.uncertainty_weighting(learning_rate=-1.0)


class TestFAMO:
    LOSSES = np.array([[1.0, 3.0], [0.5, 2.9], [0.6, 2.0], [0.2, 1.9]], np.float32)

    def expected(self, losses, after, minimum):
        """By automatic differentiation through the softmax, and Optax's Adam."""
        adam = optax.chain(optax.add_decayed_weights(0.01), optax.adam(0.1))
        logits = jnp.zeros(2)
        state = adam.init(logits)
        for t in range(len(losses)):
            if t:
                falls = jnp.log((losses[t - 1] - minimum) / (after[t] - minimum))
                slopes = jax.vjp(jax.nn.softmax, logits)[1](falls)[0]
                changes, state = adam.update(slopes, state, logits)
                logits += changes
            weights = jax.nn.softmax(logits) / (losses[t] - minimum)
            yield weights / weights.sum()

    @pytest.mark.parametrize("minimum", [0.0, 0.1])
    def test_losses_of_successive_updates(self, minimum):
        step = steps.famo(learning_rate=0.1, weight_decay=0.01, minimum=minimum)
        weights, _ = follow(step, self.LOSSES)
        wanted = list(self.expected(self.LOSSES, self.LOSSES, minimum))
        np.testing.assert_allclose(weights, wanted, rtol=1e-4)
        np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)

    def test_replayed_losses(self):
        step = steps.famo(learning_rate=0.1, weight_decay=0.01)
        replayed = self.LOSSES[::-1]
        state = step.init(2)
        wanted = list(self.expected(self.LOSSES, replayed, 0.0))
        for losses, after, row in zip(self.LOSSES, replayed, wanted, strict=True):
            found, state = step.update(
                TWO,
                TWO,
                state,
                losses=jnp.array(losses),
                replayed_losses=jnp.array(after),
            )
            np.testing.assert_allclose(found[0], row, rtol=1e-4)

    def test_a_loss_at_its_minimum(self):
        weights, _ = follow(steps.famo(), [[0.0, 1.0], [-1.0, 1.0]])
        assert np.isfinite(weights).all()
        with pytest.raises(ValueError, match="weight_decay must be 0 or more"):
            steps.famo(weight_decay=-1.0)


class TestGradNorm:
    def test_by_hand_over_two_updates(self):
        """Norms 1 and 3, rate ¼; then losses fallen to ½ and 1 of the first."""
        gram = jnp.diag(jnp.array([1.0, 9.0]))
        step = steps.gradnorm(alpha=1.0, learning_rate=0.25)
        weights, state = follow(step, [[2.0, 1.0], [1.0, 1.0], [1.0, 1.0]], gram)
        # Lengths 1 and 3 of the mean 2: slopes −½ and 3/2.
        first = np.array([1.125, 0.625]) * 2 / 1.75
        np.testing.assert_allclose(weights[:2], [[1, 1], first], rtol=1e-5)
        lengths = first * [1, 3]
        mean = lengths.mean()
        slopes = np.array([1, 3]) / mean * np.sign(lengths / mean - [2 / 3, 4 / 3])
        second = first - 0.25 * slopes
        np.testing.assert_allclose(weights[2], second * 2 / second.sum(), rtol=1e-5)
        np.testing.assert_array_equal(state.initial_losses, [2, 1])

    @pytest.mark.parametrize(
        "scale",
        [1.0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1e-18, 1e18))],
    )
    def test_norms_become_equal_whatever_their_scale(self, scale):
        gram = scale * jnp.diag(jnp.array([1.0, 16.0, 4.0]))
        step = steps.gradnorm(alpha=0.0, learning_rate=0.01)
        weights, _ = follow(step, [[1.0, 1.0, 1.0]] * 200, gram)
        np.testing.assert_allclose(weights.sum(axis=1), 3, rtol=1e-4)
        np.testing.assert_allclose(
            weights[-1] / weights[-1, 0], [1, 1 / 4, 1 / 2], rtol=0.1
        )

    def test_a_zero_gradient_keeps_its_weight(self):
        gram = jnp.diag(jnp.array([1.0, 9.0, 0.0]))
        _, state = follow(steps.gradnorm(), [[1.0, 1.0, 1.0]] * 3, gram)
        assert state.shares[2] == 1
        np.testing.assert_allclose(state.shares.sum(), 3, rtol=1e-5)
        with pytest.raises(ValueError, match="alpha must be 0 or more"):
            steps.gradnorm(alpha=-1.0)
