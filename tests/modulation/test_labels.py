"""Which parameters belong to which modality, in any tree."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from fairjax import modulation
from fairjax.models import MLP, functional
from fairjax.modulation import SHARED, modality_labels

NAMES = ("image", "notes")
SCORES = jnp.array([[0.9, 0.5], [0.1, 0.5]])
LABELS = jnp.array([1, 0])
# The image's AUC goes from .5 to 1, the notes' stays: factors 0 and 1, times rho.
FACTORS = {"image": 0.0, "notes": 2.0, SHARED: 1.0}


def balanced(labels, updates, modalities=NAMES):
    tx = modulation.balance_modalities(labels, modalities, rho=2.0)
    return updated(tx, updates)


def updated(tx, updates):
    """By one program."""

    @jax.jit
    def run(updates, scores, labels):
        return tx.update(
            updates, tx.init(updates), unimodal_scores=scores, labels=labels
        )[0]

    return run(updates, SCORES, LABELS)


def check(found, updates, labels):
    """Each leaf is scaled by the factor of its label; labels may be a prefix."""

    def same(label, one, other):
        scaled = jax.tree.map(lambda leaf: FACTORS[label] * leaf, other)
        jax.tree.map(np.testing.assert_array_equal, one, scaled)

    jax.tree.map(same, labels, found, updates)


def test_nested_dicts_lists_and_tuples():
    params = {
        "encoders": [
            {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
            (jnp.ones(2), {"scale": jnp.ones(())}),
        ],
        "head": (jnp.ones(4),),
    }
    labels = modality_labels(
        params,
        {"image": ["encoders/0"], "notes": ["encoders/1/0", "encoders/1/1/scale"]},
        shared=["head"],
    )
    assert labels == {
        "encoders": [
            {"kernel": "image", "bias": "image"},
            ("notes", {"scale": "notes"}),
        ],
        "head": (SHARED,),
    }
    check(balanced(labels, params), params, labels)
    shapes = jax.eval_shape(lambda: params)
    paths = {"image": ["encoders/0"], "notes": ["encoders/1"]}
    assert modality_labels(shapes, paths, shared=["head"]) == labels


def test_paths_are_of_whole_keys_and_may_end_in_a_slash():
    params = {"labs": {"w": 1.0}, "labs2": {"w": 2.0}}
    labels = modality_labels(params, {"image": ["labs/"], "notes": ["labs2"]})
    assert labels == {"labs": {"w": "image"}, "labs2": {"w": "notes"}}
    labels = modality_labels(params, {"image": ["labs/w/"], "notes": ["labs2/"]})
    assert labels == {"labs": {"w": "image"}, "labs2": {"w": "notes"}}


class Fusion(nnx.Module):
    """Two encoders and a head."""

    def __init__(self, rngs):
        self.image = MLP(3, (4,), 2, rngs=rngs)
        self.notes = MLP(3, (), 2, rngs=rngs)
        self.head = nnx.Linear(4, 1, rngs=rngs)


PATHS = {"image": ["image/layers"], "notes": ["notes/layers/0"]}


@pytest.mark.slow
def test_parameters_of_nnx_models():
    _, params = functional(Fusion(nnx.Rngs(0)))
    labels = modality_labels(params, PATHS, shared=["head"])
    assert labels["image"]["layers"][1] == {"kernel": "image", "bias": "image"}
    assert set(jax.tree.leaves(labels["head"])) == {SHARED}
    check(balanced(labels, params), params, labels)


@pytest.mark.slow
def test_parameters_in_an_nnx_optimizer():
    """It makes its state from variables, and updates bare arrays."""
    model = Fusion(nnx.Rngs(0))
    state = nnx.as_pure(nnx.state(model, nnx.Param))
    labels = modality_labels(state, PATHS, shared=["head"])
    tx = optax.chain(
        modulation.balance_modalities(labels, NAMES, rho=2.0), optax.sgd(1.0)
    )
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    before = jax.tree.map(jnp.copy, state)
    gradients = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
    optimizer.update(model, gradients, unimodal_scores=SCORES, labels=LABELS)
    after = nnx.as_pure(nnx.state(model, nnx.Param))
    for label, one, other in zip(
        *map(jax.tree.leaves, (labels, before, after)), strict=True
    ):
        np.testing.assert_allclose(one - other, FACTORS[label], atol=1e-6)


@pytest.mark.slow
def test_labels_may_be_a_prefix():
    params = {"image": [jnp.ones(2), jnp.ones(3)], "notes": {"w": jnp.ones(1)}}
    labels = {"image": "image", "notes": "notes"}
    check(balanced(labels, params), params, labels)
    # One modality may own all; its balance is 1.
    tx = modulation.balance_modalities("image", ["image"], rho=2.0)
    found, _ = tx.update(
        params, tx.init(params), unimodal_scores=SCORES[:, :1], labels=LABELS
    )
    jax.tree.map(
        lambda one, other: np.testing.assert_array_equal(one, 2 * other), found, params
    )


@pytest.mark.slow
def test_masked_and_partitioned_parameters():
    """Optax hands each part a tree with gaps in it."""
    params = {"image": jnp.ones(2), "notes": jnp.full(2, 3.0), "head": jnp.ones(1)}
    labels = modality_labels(
        params, {"image": ["image"], "notes": ["notes"]}, shared=["head"]
    )
    balance = modulation.balance_modalities(labels, NAMES, rho=2.0)
    chosen = {"image": False, "notes": True, "head": True}
    found = updated(optax.masked(balance, chosen), params)
    check(found, params, {"image": SHARED, "notes": "notes", "head": SHARED})
    parts = {
        "image": balance,
        "notes": optax.chain(balance, optax.scale(-1.0)),
        SHARED: optax.set_to_zero(),
    }
    found = updated(optax.partition(parts, labels), params)
    np.testing.assert_array_equal(found["image"], 0)
    np.testing.assert_array_equal(found["notes"], -6)
    np.testing.assert_array_equal(found["head"], 0)
    for tx in (
        modulation.ogm_ge(labels, NAMES),
        optax.masked(modulation.ogm_ge(labels, NAMES, noise=0.0), chosen),
    ):
        np.testing.assert_array_equal(updated(tx, params)["head"], 1)


def test_gaps_in_a_tree_stay():
    params = {"image": jnp.ones(2), "notes": {"w": jnp.ones(2), "bias": None}}
    labels = modality_labels(params, {"image": ["image"], "notes": ["notes"]})
    assert labels["notes"] == {"w": "notes", "bias": None}
    assert balanced(labels, params)["notes"]["bias"] is None


PARAMS = {"labs": {"w": jnp.ones(2)}, "notes": jnp.ones(2), "head": jnp.ones(1)}


@pytest.mark.parametrize(
    ("modalities", "shared", "message"),
    [
        ({"labs": ["labs"]}, ["head"], "claimed; got 'notes', which no path"),
        (
            {"labs": ["labs"], "notes": ["notes", "labs/w"]},
            ["head"],
            "claimed once; got 'labs/w', claimed by labs and by notes",
        ),
        (
            {"labs": ["labs"], "notes": ["notes"]},
            ["head", "notes"],
            "claimed once; got 'notes', claimed by notes and by shared",
        ),
        (
            {"labs": ["labs", "lab"], "notes": ["notes"]},
            ["head"],
            "every path must claim a parameter; got 'lab', which",
        ),
        (
            {"labs": ["labs"], "notes": ["notes"]},
            ["head", "fusion"],
            "every path must claim a parameter; got 'fusion', which",
        ),
        (
            {"labs": ["labs"], "notes": []},
            ["head"],
            r"modality 'notes' must have a path; got \[\]",
        ),
        (
            {"shared": ["labs"]},
            ["head"],
            r"a modality must not be named 'shared'.*got \['shared'\]",
        ),
        (
            {"labs": "labs"},
            ["head"],
            r"'labs' must have a list of paths; got 'labs'. Pass \['labs'\]",
        ),
        (
            {"labs": ["labs"], "notes": ["notes"]},
            "head",
            r"'shared' must have a list of paths; got 'head'. Pass \['head'\]",
        ),
    ],
)
def test_claims_that_are_wrong(modalities, shared, message):
    with pytest.raises(ValueError, match=message):
        modality_labels(PARAMS, modalities, shared=shared)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            {"labs": "labs", "notes": "note", "head": SHARED},
            r"labels must be modalities \(labs, notes\) or 'shared'; got 'note'",
        ),
        (
            {"labs": "labs", "notes": SHARED, "head": SHARED},
            "every modality must label a parameter; got no label 'notes'",
        ),
        (
            {"labs": "labs", "notes": "notes"},
            "the labels' tree must fit the parameters' tree",
        ),
        (
            {"labs": {"v": "labs"}, "notes": "notes", "head": SHARED},
            "the labels' tree must fit the parameters' tree",
        ),
    ],
)
@pytest.mark.parametrize(
    "make",
    [
        modulation.balance_modalities,
        modulation.ogm_ge,
        lambda *args: modulation.balance_groups(*args, num_groups=2),
        lambda *args: modulation.multifair(*args, num_groups=2),
    ],
)
def test_labels_that_do_not_fit(make, labels, message):
    with pytest.raises(ValueError, match=message):
        make(labels, ["labs", "notes"]).init(PARAMS)
