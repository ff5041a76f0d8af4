"""Where the released code differs from the paper, each difference a fact to check."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fairjax import modulation
from tests.modulation import transcription
from tests.modulation.transcription import Batch, MultiFair, Settings

NAMES = ("image", "notes")
LABELS = {"image": "image", "notes": "notes", "head": "shared"}
PARAMS = {name: jnp.array([1.0, -2.0]) for name in LABELS}


@functools.cache
def followed(mode):
    """An update by groups from a fresh state, with traced settings, compiled."""

    def run(batch, settings):
        tx = modulation.balance_groups(
            LABELS, NAMES, num_groups=2, mode=mode, **settings
        )
        return tx.update(PARAMS, tx.init(PARAMS), **batch)

    return jax.jit(run)


group_aucs = jax.jit(modulation.group_aucs, static_argnames="kind")


def surrogate(positive, negative, kind):
    scores = jnp.array([[positive], [negative]])
    return group_aucs(scores, jnp.array([1, 0]), kind=kind).values.item()


def test_released_surrogate_is_below_one_half_without_separation():
    """.307, and from −.313 to .687, for scores from 0 to 1."""
    found = [
        surrogate(a, b, "released") for a, b in ((0.4, 0.4), (0.0, 1.0), (1.0, 0.0))
    ]
    np.testing.assert_allclose(found, [0.307, -0.313, 0.687], atol=5e-4)
    found = [surrogate(a, b, "paper") for a, b in ((0.4, 0.4), (0.0, 1.0), (1.0, 0.0))]
    np.testing.assert_allclose(found, [0.5, 0.053, 0.774], atol=5e-4)


@pytest.mark.parametrize("mode", ["paper", "released"])
def test_released_a_group_that_lacks_a_class_looks_better_than_useless_scores(mode):
    """Both groups have the same useless scores; the second has no negative."""
    scores = jnp.full(6, 0.5)
    batch = {
        "unimodal_scores": jnp.stack([scores, scores], axis=1),
        "scores": scores,
        "labels": jnp.array([1, 0, 1, 1, 1, 1]),
        "groups": jnp.array([0, 0, 0, 1, 1, 1]),
    }
    _, state = followed(mode)(batch, {"mu": 0.3, "tau": 0.04, "decay": 0.0})
    useless, lacking = np.asarray(state.group_auc[0])
    if mode == "released":
        assert lacking == 0.5
        assert useless == pytest.approx(1 - np.log(2), rel=1e-6)
        assert float(state.fairness_gap) == pytest.approx((0.5 - useless) / 2, rel=1e-5)
        assert float(state.fairness_factors[0]) == pytest.approx(1, abs=1e-5)
    else:
        assert useless == pytest.approx(0.5, abs=1e-6)
        assert lacking == 0.5
        assert float(state.fairness_gap) == 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["paper", "released"])
def test_released_two_equally_frequent_groups_are_never_modulated(mode):
    """The first group perfectly ranked, the second in reverse: still f = 1."""
    labels = jnp.array([1, 0, 1, 0])
    scores = jnp.array([0.99, 0.01, 0.01, 0.99])
    settings = {"mu": 5.0, "tau": 0.01, "decay": 0.0}

    def factors(groups, rows):
        batch = {
            "unimodal_scores": jnp.stack([scores, scores**2], axis=1)[rows],
            "scores": scores[rows],
            "labels": labels[rows],
            "groups": groups[rows],
        }
        updates, state = followed(mode)(batch, settings)
        assert state.fairness_gate
        assert state.fairness_gap > 0.1
        return state.fairness_factors, updates

    groups = jnp.array([0, 0, 1, 1])
    found, updates = factors(groups, jnp.array([0, 1, 0, 2, 3, 2]))
    np.testing.assert_allclose(found, 1, atol=2e-4)
    np.testing.assert_allclose(updates["image"], PARAMS["image"], rtol=2e-4)
    # Of unequal groups the worse one's weight tells.
    unequal, _ = factors(groups, jnp.array([0, 1, 2, 3, 2, 3]))
    assert (unequal > 10).all()


def test_released_factors_may_turn_gradients_round_and_the_paper_mode_does_not():
    """Two thirds of the rows are of the group that is served better."""
    rows = np.array([0, 1, 0, 1, 2, 3])
    scores = np.float32([0.99, 0.01, 0.01, 0.99])[rows]
    batch = {
        "unimodal_scores": np.stack([scores, scores], axis=1),
        "scores": scores,
        "labels": np.array([1, 0, 1, 0])[rows],
        "groups": np.array([0, 0, 1, 1])[rows],
    }
    found = {}
    for mode in ("released", "paper"):
        settings = {"mu": 0.5, "tau": 0.01, "decay": 0.0}
        found[mode], state = followed(mode)(batch, settings)
        assert state.fairness_gate
    assert found["released"]["image"][0] < -1
    np.testing.assert_array_equal(found["paper"]["image"], [0, 0])
    for mode in found:
        np.testing.assert_array_equal(found[mode]["head"], PARAMS["head"])


def test_released_gate_takes_a_group_without_a_class_for_one_of_auc_one_half():
    scores = jnp.array([0.9, 0.1, 0.2, 0.8, 0.7, 0.6])
    batch = {
        "unimodal_scores": jnp.stack([scores, scores], axis=1),
        "scores": scores,
        "labels": jnp.array([1, 0, 0, 1, 1, 1]),
        "groups": jnp.array([0, 0, 0, 1, 1, 1]),
    }
    gates = {}
    for mode in ("released", "paper"):
        settings = {"mu": 0.3, "tau": 0.04, "decay": 0.9}
        _, state = followed(mode)(batch, settings)
        gates[mode] = bool(state.fairness_gate), float(state.fused_gap)
    assert gates["released"] == (True, 0.5)
    assert not gates["paper"][0]
    assert np.isnan(gates["paper"][1])


def problem():
    """Two encoders, their heads on attached scores, and a fused head; float64."""
    rng = np.random.default_rng(4)
    labels = np.array([1, 0] * 12)
    inputs = rng.normal(size=(2, 24, 3)) + 0.5 * labels[:, None]
    weights = {
        "image": rng.normal(size=3),
        "notes": rng.normal(size=3),
        "head": rng.normal(size=6),
    }
    groups = rng.choice(3, 24, p=[0.5, 0.3, 0.2])
    targets = rng.normal(size=(2, 6))
    start = {
        "modality_auc": np.array([0.6, 0.45]),
        "group_auc": rng.uniform(0.4, 0.7, (2, 3)),
        "group_seen": np.ones((2, 3), bool),
    }
    return inputs, labels, groups, weights, targets, start


SETTINGS = Settings("paper", direction=0.7, fairness=0.9, tau=0.02, decay=0.3)


def transcribed_penalty(weights):
    inputs, labels, groups, _, targets, start = problem()
    logits = np.stack(
        [inputs[m] @ weights[name] for m, name in enumerate(NAMES)], axis=1
    )
    joined = np.concatenate(list(inputs), axis=1)
    batch = Batch(
        unimodal_scores=1 / (1 + np.exp(-logits)),
        scores=1 / (1 + np.exp(-joined @ weights["head"])),
        labels=labels,
        groups=groups,
        present=np.ones((24, 2), bool),
    )
    method = MultiFair(SETTINGS, 2, 3)
    for name, value in start.items():
        setattr(method, name, value.copy())
    fused = transcription.last_layer_gradient(joined, weights["head"], labels)
    return method.follow(batch, fused, targets)


def penalty(weights):
    inputs, labels, groups, _, targets, start = jax.tree.map(jnp.asarray, problem())
    logits = jnp.stack(
        [inputs[m] @ weights[name] for m, name in enumerate(NAMES)], axis=1
    )
    joined = jnp.concatenate(list(inputs), axis=1)
    fused = joined @ weights["head"]
    return modulation.multifair_penalty(
        fused_gradient=modulation.last_layer_gradient(joined, fused, labels),
        unimodal_gradients=targets,
        unimodal_scores=jax.nn.sigmoid(logits),
        scores=jax.nn.sigmoid(fused),
        labels=labels,
        groups=groups,
        direction=SETTINGS.direction,
        fairness=SETTINGS.fairness,
        tau=SETTINGS.tau,
        decay=SETTINGS.decay,
        **start,
    )


def test_paper_terms_reach_head_and_encoders_as_finite_differences_say():
    """The direction term moves the fused head, the fairness term the encoders."""
    weights = problem()[3]
    wanted = transcribed_penalty(weights)
    assert wanted["fairness_gate"]
    slopes = {}
    for name, value in weights.items():
        slopes[name] = np.zeros_like(value)
        for place in range(len(value)):
            ends = []
            for sign in (1, -1):
                moved = {key: leaf.copy() for key, leaf in weights.items()}
                moved[name][place] += sign * 1e-6
                ends.append(transcribed_penalty(moved)["total"])
            slopes[name][place] = (ends[0] - ends[1]) / 2e-6
    with jax.enable_x64(True):
        run = jax.jit(jax.value_and_grad(lambda weights: penalty(weights).total))
        found, gradient = jax.device_get(run(jax.tree.map(jnp.asarray, weights)))
    assert float(found) == pytest.approx(wanted["total"], rel=1e-12)
    for name in weights:
        # The fairness term is differentiated through the batch, whose share of an
        # average is 1 less the decay.
        share = 1.0 if name == "head" else 1 - SETTINGS.decay
        slope = slopes[name] / share
        np.testing.assert_allclose(gradient[name], slope, rtol=1e-5, atol=1e-9)
        assert np.abs(gradient[name]).min() > 1e-4


@pytest.mark.slow
def test_the_gate_shuts_the_fairness_term_off_and_leaves_the_direction_term():
    weights = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), problem()[3])
    _, labels, _, _, targets, start = problem()
    kept = {
        "fused_gradient": weights["head"],
        "unimodal_gradients": jnp.asarray(targets, jnp.float32),
        "labels": jnp.asarray(labels),
        "groups": jnp.zeros(24, jnp.int32),
        "scores": jnp.linspace(0.1, 0.9, 24),
        "modality_auc": jnp.asarray(start["modality_auc"], jnp.float32),
        "group_auc": jnp.asarray(start["group_auc"], jnp.float32),
        "group_seen": jnp.asarray(start["group_seen"]),
    }
    scores = jnp.stack([jnp.linspace(0.1, 0.8, 24)] * 2, axis=1)

    def total(scores):
        return modulation.multifair_penalty(unimodal_scores=scores, **kept)

    found = jax.jit(total)(scores)
    assert not found.gate
    assert found.fairness > 0.01
    np.testing.assert_allclose(found.total, 0.15 * found.direction, rtol=1e-6)
    slope = jax.jit(jax.grad(lambda scores: total(scores).total))(scores)
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.slow
def test_adam_is_indifferent_to_a_constant_factor():
    """Before Adam a constant balance is divided away; after it, it scales the step."""
    # Two modalities whose AUCs move alike have B = ½ each, batch after batch.
    scores = jnp.array([[0.9, 0.9], [0.1, 0.1]])
    balance = modulation.balance_modalities(LABELS, NAMES, rho=0.6)
    adam = optax.adam(0.1, eps=1e-12)

    def run(tx):
        state, found = tx.init(PARAMS), []
        for t in range(4):
            rows = scores[jnp.array([t % 2, 1 - t % 2])]
            gradients = jax.tree.map(lambda leaf, t=t: leaf * (1 + t), PARAMS)
            updates, state = jax.jit(tx.update)(
                gradients,
                state,
                PARAMS,
                unimodal_scores=rows,
                labels=jnp.array([1, 0]),
            )
            found.append(updates)
        np.testing.assert_allclose(optax.tree.get(state, "modality_balance"), 0.5)
        return found

    before, after = run(optax.chain(balance, adam)), run(optax.chain(adam, balance))
    state = adam.init(PARAMS)
    for t in range(4):
        gradients = jax.tree.map(lambda leaf, t=t: leaf * (1 + t), PARAMS)
        wanted, state = adam.update(gradients, state, PARAMS)
        for name in NAMES:
            np.testing.assert_allclose(before[t][name], wanted[name], rtol=1e-5)
            np.testing.assert_allclose(after[t][name], 0.3 * wanted[name], rtol=1e-5)
        np.testing.assert_allclose(after[t]["head"], wanted["head"], rtol=1e-6)
