"""CGGM's signed balance, and OGM-GE: factors by hand, and noise as it should be."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairjax import modulation

NAMES = ("image", "notes", "labs")
LABELS = {name: name for name in NAMES} | {"head": "shared"}
PARAMS = {name: jnp.array([1.0, -2.0]) for name in LABELS}


def updated(tx, updates=PARAMS, **batch):
    return jax.jit(tx.update)(updates, tx.init(PARAMS), **batch)


def test_signed_balance_turns_gradients_round_and_a_limit_holds_it():
    """AUCs 1, 0 and .75 from .5: changes .5, −.5 and .25, whose sum is .25."""
    scores = jnp.array([[0.9, 0.1, 0.6], [0.1, 0.9, 0.4], [0.8, 0.2, 0.4]])
    labels = jnp.array([1, 0, 1])
    for limit, factors in ((None, [-1, 3, 0]), (0.75, [-0.75, 0.75, 0])):
        tx = modulation.balance_modalities(
            LABELS, NAMES, rho=2.0, signed=True, limit=limit
        )
        found, state = updated(tx, unimodal_scores=scores, labels=labels)
        np.testing.assert_allclose(state.modality_auc, [1, 0, 0.75], rtol=1e-6)
        np.testing.assert_allclose(state.modality_balance, factors, atol=1e-5)
        for name, factor in zip(NAMES, factors, strict=True):
            wanted = 2 * factor * PARAMS[name]
            np.testing.assert_allclose(found[name], wanted, atol=1e-4)
        np.testing.assert_array_equal(found["head"], PARAMS["head"])


def test_the_balance_follows_the_last_auc():
    """The second batch's AUCs are the first's: nothing moves, and all are 1."""
    scores, labels = jnp.array([[0.9, 0.5, 0.1], [0.1, 0.5, 0.9]]), jnp.array([1, 0])
    tx = modulation.balance_modalities(LABELS, NAMES, rho=1.0)
    _, state = updated(tx, unimodal_scores=scores, labels=labels)
    np.testing.assert_allclose(state.modality_balance, [0.5, 1, 0.5], rtol=1e-6)
    _, state = jax.jit(tx.update)(PARAMS, state, unimodal_scores=scores, labels=labels)
    np.testing.assert_array_equal(state.modality_balance, 1)
    np.testing.assert_array_equal(state.modality_auc, [1, 0.5, 0])


@pytest.mark.slow
def test_what_does_not_move_has_no_balance_of_rounding():
    """AUCs of 1/3 in float64, which float32 cannot hold, and of 0."""
    with jax.enable_x64(True):
        scores = jnp.array([[0.9, 0.2], [0.25, 0.1], [0.2, 0.3], [0.3, 0.4]])
        labels = jnp.array([0, 1, 0, 0])
        tx = modulation.balance_modalities({"a": "a", "b": "b"}, ["a", "b"])
        params = {"a": jnp.ones(1), "b": jnp.ones(1)}
        state, update = tx.init(params), jax.jit(tx.update)
        for _ in range(3):
            _, state = update(params, state, unimodal_scores=scores, labels=labels)
        np.testing.assert_allclose(state.modality_auc[0], 1 / 3, rtol=1e-6)
        np.testing.assert_array_equal(state.modality_balance, 1)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("lacking", ["a class", "everybody"])
def test_what_is_present_is_not_switched_off_by_what_lacks_an_auc(signed, lacking):
    """Image alone, and image and notes by themselves: changes of .5 and 0."""
    scores = jnp.array([[0.9, 0.5, 0.2], [0.1, 0.5, 0.1]])
    has = {"a class": [True, False], "everybody": [False, False]}[lacking]
    absent = jnp.array(has)
    present = jnp.ones((2, 3), bool)
    tx = modulation.balance_modalities(LABELS, NAMES, rho=2.0, signed=signed)
    batch = {"unimodal_scores": scores, "labels": jnp.array([1, 0])}
    for columns, wanted in (([2], [0, 1, 1]), ([1, 2], [1, 1, 1])):
        for column in columns:
            present = present.at[:, column].set(absent)
        found, state = updated(tx, **batch, present=present)
        np.testing.assert_allclose(state.modality_balance, wanted, atol=1e-6)
        np.testing.assert_array_equal(state.modality_auc[np.array(columns)], 0.5)
        for name, factor in zip(NAMES, wanted, strict=True):
            np.testing.assert_allclose(
                found[name], 2 * factor * PARAMS[name], atol=1e-5
            )


CONTRIBUTIONS = {
    "unimodal_scores": jnp.array([[0.9, 0.5, 0.2], [0.3, 0.4, 0.8], [0.6, 0.1, 0.1]]),
    "labels": jnp.array([1, 0, -1]),
}


def test_ogm_slows_the_modality_that_contributes_most():
    """Probabilities of the true class: .8, .55 and .2; padding has none."""
    tx = modulation.ogm_ge(LABELS, NAMES, alpha=0.5, noise=0.0)
    found, state = updated(tx, **CONTRIBUTIONS)
    factors = [
        1 - math.tanh(0.5 * 0.8 / 0.375),
        1 - math.tanh(0.5 * 0.55 / 0.5),
        1.0,
    ]
    np.testing.assert_allclose(state.contribution_balance, factors, rtol=1e-5)
    for name, factor in zip(NAMES, factors, strict=True):
        np.testing.assert_allclose(found[name], factor * PARAMS[name], rtol=1e-5)
    np.testing.assert_array_equal(found["head"], PARAMS["head"])


@pytest.mark.slow
def test_ogm_compares_no_modality_with_one_that_nobody_has():
    """Nor with what is not finite: here .9 against .5, of the first row alone."""
    present = jnp.array([[True, True, False], [False, False, False], [True] * 3])
    tx = modulation.ogm_ge(LABELS, NAMES, alpha=0.5, noise=0.0)
    factors = [1 - math.tanh(0.5 * 0.9 / 0.5), 1, 1]
    _, state = updated(tx, **CONTRIBUTIONS, present=present)
    np.testing.assert_allclose(state.contribution_balance, factors, rtol=1e-5)
    holes = jnp.where(present, CONTRIBUTIONS["unimodal_scores"], jnp.nan)
    _, state = updated(tx, **CONTRIBUTIONS | {"unimodal_scores": holes})
    np.testing.assert_allclose(state.contribution_balance, factors, rtol=1e-5)
    _, state = updated(tx, **CONTRIBUTIONS, present=jnp.zeros((3, 3), bool))
    np.testing.assert_array_equal(state.contribution_balance, 1)


@pytest.mark.slow
def test_noise_has_the_spread_of_the_gradient():
    """20,000 numbers: mean and spread within four standard errors."""
    size = 20_000
    rng = np.random.default_rng(0)
    updates = {
        name: jnp.asarray(5 + 2 * rng.normal(size=size), jnp.float32) for name in LABELS
    }
    noise = {}
    for factor in (1.0, 0.5):
        tx = modulation.ogm_ge(LABELS, NAMES, alpha=0.0, noise=factor, key=3)
        state = tx.init(updates)
        for step in range(2):
            found, state = jax.jit(tx.update)(updates, state, **CONTRIBUTIONS)
            np.testing.assert_array_equal(found["head"], updates["head"])
            for name in NAMES:
                drawn = np.asarray(found[name] - updates[name])
                noise[factor, step, name] = drawn
                spread = factor * np.std(updates[name])
                assert abs(drawn.mean()) < 4 * spread / size**0.5
                assert abs(drawn.std() / spread - 1) < 4 / (2 * size) ** 0.5
    # Each update's and each modality's own, and the same for the same key.
    draws = [noise[1.0, step, name] for step in range(2) for name in NAMES]
    related = np.abs(np.corrcoef([*draws, updates["image"]]) - np.eye(7))
    assert related.max() < 5 / size**0.5
    np.testing.assert_allclose(
        noise[0.5, 1, "labs"], 0.5 * noise[1.0, 1, "labs"], atol=2e-5
    )


@pytest.mark.slow
def test_ogm_maps_over_keys_and_settings():
    def run(key, alpha, noise):
        tx = modulation.ogm_ge(LABELS, NAMES, alpha=alpha, noise=noise, key=key)
        return tx.update(PARAMS, tx.init(PARAMS), **CONTRIBUTIONS)[0]

    settings = jnp.array([0, 1]), jnp.array([0.5, 0.1]), jnp.array([1.0, 2.0])
    found = jax.jit(jax.vmap(run))(*settings)
    for number, values in enumerate(zip(*settings, strict=True)):
        for name, leaf in jax.jit(run)(*values).items():
            np.testing.assert_allclose(found[name][number], leaf, rtol=1e-5)
    assert not np.allclose(found["image"][0], found["image"][1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: modulation.balance_modalities(LABELS, NAMES),
        lambda: modulation.balance_groups(LABELS, NAMES, num_groups=4),
        lambda: modulation.ogm_ge(LABELS, NAMES),
        lambda: modulation.multifair(LABELS, NAMES, num_groups=4),
    ],
)
def test_states_are_made_from_shapes_and_serve_a_scan(make):
    tx = make()
    shapes = jax.eval_shape(lambda: PARAMS)
    start = jax.eval_shape(tx.init, shapes)
    batch = CONTRIBUTIONS | {"groups": jnp.array([0, 1, -1]), "scores": jnp.ones(3)}
    after = jax.eval_shape(lambda: tx.update(PARAMS, tx.init(PARAMS), **batch)[1])
    assert start == after
    np.testing.assert_array_equal(
        [leaf.weak_type for leaf in jax.tree.leaves(start)], False
    )
