"""What users are told, who have no run-time check of annotations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairjax import modulation

pytestmark = pytest.mark.usefixtures("untyped")

PARAMS = {"image": np.ones(2, np.float32), "notes": np.ones(2, np.float32)}
LABELS = {"image": "image", "notes": "notes"}
NAMES = ["image", "notes"]
SCORES = np.full((4, 2), 0.5, np.float32)
BATCH = {
    "unimodal_scores": SCORES,
    "scores": SCORES[:, 0],
    "labels": np.array([1, 0, 1, 0]),
    "groups": np.array([0, 0, 1, 1]),
}
MAKE = {
    "balance_modalities": modulation.balance_modalities,
    "balance_groups": lambda *args: modulation.balance_groups(*args, num_groups=2),
    "ogm_ge": modulation.ogm_ge,
    "multifair": lambda *args: modulation.multifair(*args, num_groups=2),
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize(
    ("modalities", "message"),
    [
        ([], r"modalities must be one or more names, each once; got \[\]"),
        ("image", "modalities must be .* names, each once; got 'image'"),
        (["image", "image"], "each once"),
        (["image", "shared"], "a modality must not be named 'shared'.*got .*image"),
    ],
)
def test_modalities_that_are_none(make, modalities, message):
    with pytest.raises(ValueError, match=message):
        make(LABELS, modalities)


def refused(make, message, **changes):
    tx = make(LABELS, NAMES)
    batch = {k: v for k, v in (BATCH | changes).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        tx.update(PARAMS, tx.init(PARAMS), **batch)


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unimodal_scores": None}, "needs unimodal_scores: pass unimodal_scores="),
        ({"labels": None}, "needs labels: pass labels=... to update"),
        (
            {"unimodal_scores": SCORES[:, 0]},
            r"have shape \[n, 2\], a column for each of image, notes; got shape \(4,\)",
        ),
        ({"unimodal_scores": SCORES[:, :1]}, r"\[n, 2\], .*; got shape \(4, 1\)"),
        (
            {"labels": jnp.array([1])},
            r"labels must have shape \(4,\), .* row of scores; got \(1,\)",
        ),
        (
            {"labels": BATCH["labels"][:, None]},
            r"labels must have shape \(4,\), .*; got \(4, 1\)",
        ),
        (
            {"present": jnp.ones((4, 1), bool)},
            r"present must have shape \(4, 2\), as the scores; got \(4, 1\)",
        ),
    ],
)
def test_what_an_update_lacks(make, changes, message):
    refused(make, message, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": None}, "balance_groups needs groups: pass groups="),
        ({"scores": None}, "balance_groups needs scores: pass scores="),
        (
            {"groups": BATCH["groups"][:3]},
            r"groups must have shape \(4,\), .* row of scores; got \(3,\)",
        ),
        (
            {"scores": SCORES[:, :1]},
            r"scores must have shape \(4,\), .* unimodal_scores; got \(4, 1\)",
        ),
        (
            {"scores": SCORES[:3, 0]},
            r"scores must have shape \(4,\), .* unimodal_scores; got \(3,\)",
        ),
    ],
)
def test_what_an_update_by_groups_lacks(changes, message):
    refused(MAKE["balance_groups"], message, **changes)


PENALTY = BATCH | {
    "fused_gradient": jnp.ones(3),
    "unimodal_gradients": jnp.ones((2, 3)),
    "modality_auc": jnp.full(2, 0.5),
    "group_auc": jnp.full((2, 2), 0.5),
    "group_seen": jnp.zeros((2, 2), bool),
}
INPUTS = jnp.ones((4, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: modulation.balance_groups(LABELS, NAMES, num_groups=1),
            "needs two groups or more; got 1",
        ),
        (
            lambda: modulation.fairness_gap(jnp.full((2, 1), 0.7)),
            "needs two groups or more; got 1",
        ),
        (
            lambda: modulation.fairness_factors(
                jnp.full((2, 1), 0.7), jnp.ones(1), strength=0.3, threshold=0.04
            ),
            "needs two groups or more; got 1",
        ),
        (
            lambda: modulation.fairness_factors(
                jnp.full((2, 2), 0.7), jnp.ones(2) / 2, strength=-3, threshold=0.04
            ),
            "strength must be 0 or more; got -3",
        ),
        (
            lambda: modulation.fairness_factors(
                jnp.full((2, 2), 0.7), jnp.ones(2) / 2, strength=0.3, threshold=-1
            ),
            "threshold must be 0 or more; got -1",
        ),
        (
            lambda: modulation.contribution_balance(jnp.ones(2), alpha=-1),
            "alpha must be 0 or more; got -1",
        ),
        (
            lambda: modulation.multifair_penalty(
                **PENALTY | {"unimodal_scores": SCORES[:, 0]}
            ),
            r"unimodal_scores must have shape \[n, M\], .*; got shape \(4,\)",
        ),
        (
            lambda: modulation.multifair(
                jax.tree.map(jnp.asarray, PARAMS), NAMES, num_groups=2
            ).init(PARAMS),
            "labels must be names of modalities; got .*Array",
        ),
        (
            lambda: modulation.balance_groups(LABELS, NAMES, num_groups=2.0),
            "num_groups must be a static Python int",
        ),
        (
            lambda: modulation.multifair(LABELS, NAMES, num_groups=2, mode="code"),
            "mode must be 'paper' or 'released'; got 'code'",
        ),
        (
            lambda: modulation.group_aucs(SCORES, BATCH["labels"], kind="smooth"),
            "kind must be 'exact', 'paper' or 'released'; got 'smooth'",
        ),
        (
            lambda: modulation.group_aucs(SCORES[:, 0], BATCH["labels"]),
            r"scores must have shape \[n, M\], a column .*; got shape \(4,\)",
        ),
        (
            lambda: modulation.direction_loss(
                jnp.ones(3), jnp.ones((2, 4)), jnp.ones(2)
            ),
            r"gradients of one shape; got \(3,\) and \(4,\)",
        ),
        (
            lambda: modulation.direction_loss(
                jnp.ones(3), jnp.ones((2, 3)), jnp.ones(1)
            ),
            r"balance must have shape \(2,\), .*; got \(1,\)",
        ),
        (
            lambda: modulation.last_layer_gradient(
                INPUTS, jnp.ones((4, 1)), BATCH["labels"]
            ),
            r"\[4\] for a sigmoid, .* two classes or more; got shape \(4, 1\)",
        ),
        (
            lambda: modulation.last_layer_gradient(
                INPUTS, jnp.ones(3), BATCH["labels"]
            ),
            r"logits must have shape \[4\] for a sigmoid, .*; got shape \(3,\)",
        ),
        (
            lambda: modulation.last_layer_gradient(
                INPUTS, jnp.ones(4), BATCH["labels"][:, None]
            ),
            r"labels must have shape \(4,\), .* row of inputs; got \(4, 1\)",
        ),
        (
            lambda: modulation.last_layer_gradient(
                INPUTS, jnp.ones(4), BATCH["labels"], weights=jnp.ones(3)
            ),
            r"weights must have shape \(4,\), .* row of inputs; got \(3,\)",
        ),
        pytest.param(
            lambda: jax.eval_shape(
                modulation.multifair_penalty,
                **PENALTY | {"unimodal_gradients": jnp.ones((2, 4))},
            ),
            "Give the heads the same width",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda: jax.eval_shape(
                modulation.multifair_penalty,
                **PENALTY | {"groups": jnp.zeros(3, jnp.int32)},
            ),
            r"groups must have shape \(4,\), .* row of scores; got \(3,\)",
            marks=pytest.mark.slow,
        ),
        (
            lambda: modulation.multifair_penalty(
                **PENALTY | {"group_auc": jnp.full((2, 1), 0.5)}
            ),
            r"group_auc must have shape \[2, G\] with two groups .* shape \(2, 1\)",
        ),
        (
            lambda: modulation.multifair_penalty(
                **PENALTY | {"group_seen": jnp.zeros((2, 1), bool)}
            ),
            r"group_seen must have shape \(2, 2\), as group_auc; got \(2, 1\)",
        ),
        (
            lambda: modulation.multifair_penalty(**PENALTY | {"scores": SCORES}),
            r"scores must have shape \(4,\), .* unimodal_scores; got \(4, 2\)",
        ),
        (
            lambda: modulation.multifair_penalty(
                **PENALTY | {"group_auc": jnp.full((3, 2), 0.5)}
            ),
            r"group_auc must have 2 rows, .*; got shape \(3, 2\)",
        ),
        (
            lambda: modulation.multifair_penalty(
                **PENALTY | {"modality_auc": jnp.full(1, 0.5)}
            ),
            r"modality_auc must have 2 rows, .*; got shape \(1,\)",
        ),
        (
            lambda: modulation.dual_level(num_modalities=0, num_groups=2),
            "num_modalities must be at least 1; got 0",
        ),
        (
            lambda: modulation.dual_level(num_modalities=2, num_groups=1.5),
            "num_groups must be a static Python int",
        ),
        (
            lambda: modulation.dual_level(num_modalities=2, num_groups=2, limit=-1.0),
            "limit must be 0 or more; got -1.0",
        ),
        (
            lambda: modulation.dual_level(num_modalities=2, num_groups=2, order="any"),
            "order",
        ),
    ],
)
def test_what_else_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
def test_gradients_that_are_not_of_every_modality_and_group():
    tx = modulation.dual_level(num_modalities=2, num_groups=3)
    rows = jnp.asarray(np.ones((5, 2), np.float32))
    with pytest.raises(ValueError, match="for 6 objectives; .* 5 rows"):
        jax.eval_shape(lambda rows: tx.update(rows, tx.init(rows[0])), rows)
    tx = modulation.dual_level(num_modalities=2, num_groups=3, order=[0, 1, 2])
    rows = jnp.ones((6, 2))
    with pytest.raises(ValueError, match="order"):
        jax.eval_shape(lambda rows: tx.update(rows, tx.init(rows[0])), rows)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        ("balance_modalities", {"rho": -1.0}, "rho must be 0 or more; got -1"),
        ("balance_modalities", {"limit": -2.0}, "limit must be 0 or more"),
        ("balance_groups", {"mu": -0.3}, "mu must be 0 or more; got -0.3"),
        ("balance_groups", {"tau": float("nan")}, "tau must be 0 or more; got nan"),
        ("balance_groups", {"decay": 1.0}, r"decay must lie in \[0, 1\); got 1.0"),
        ("multifair", {"decay": 2.0}, r"decay must lie in \[0, 1\); got 2.0"),
        ("ogm_ge", {"alpha": -0.1}, "alpha must be 0 or more"),
        ("ogm_ge", {"noise": -0.1}, "noise must be 0 or more"),
    ],
)
def test_settings_out_of_their_range(make, settings, message):
    sizes = {"num_groups": 2} if make in ("balance_groups", "multifair") else {}
    with pytest.raises(ValueError, match=message):
        getattr(modulation, make)(LABELS, NAMES, **sizes, **settings)


def test_the_penaltys_averages_need_a_decay_below_1():
    arguments = {
        **BATCH,
        "fused_gradient": jnp.ones(3),
        "unimodal_gradients": jnp.ones((2, 3)),
        "modality_auc": jnp.full(2, 0.5),
        "group_auc": jnp.full((2, 2), 0.5),
        "group_seen": jnp.zeros((2, 2), bool),
    }
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\); got 1.0"):
        modulation.multifair_penalty(**arguments, decay=1.0)


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize("kind", [jnp.array, np.array], ids=["jax", "numpy"])
def test_outcomes_of_plus_and_minus_1(make, kind):
    refused(make, "got 1 and -1. Pass labels > 0", labels=kind([1, -1, 1, -1]))


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize("labels", [[1, 2, 1, 2], [2.0, 1.0, 1.0, -1.0]])
def test_outcomes_of_1_and_2(make, labels):
    refused(make, "got 1 and 2. Pass labels == 2", labels=np.array(labels))


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_outcomes_in_words(make):
    labels = np.array(["died", "alive", "died", "alive"])
    refused(make, "labels must be 1 or 0, not text; got .*died", labels=labels)


@pytest.mark.slow
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize(
    "labels",
    [[1, 1, 1, 1], [0, 0, 0, 0], [-1, -1, -1, -1], [1, 0, 2, 2], [True] * 4],
    ids=str,
)
def test_batches_of_one_class_and_of_padding_are_taken(make, labels):
    tx = make(LABELS, NAMES)
    given = BATCH | {"labels": jnp.array(labels)}
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), **given)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))


GROUPS = {
    "from 1": (
        np.array([1, 1, 2, 2]),
        "groups must be integers from 0 to 1, for num_groups=2; got larger",
    ),
    "huge": (
        np.array([0, 0, 1, 2**40]),
        f"got larger numbers, up to {2**40}, in 1 rows, which",
    ),
    "none": (
        jnp.full(4, -1),
        "a negative number means no group; got negative numbers in all rows",
    ),
    "bool": (
        jnp.array([True, False] * 2),
        "groups must be integers from 0 to 1; got bool",
    ),
    "text": (
        np.array(["f", "m"] * 2),
        "got text. Number them, for example by np.uniq",
    ),
    "objects": (np.array(["f", None] * 2, object), "got object. Number them"),
    "floats": (jnp.array([0.0, 1.0] * 2), "got float32. Number them"),
    "list": (["f", "m"] * 2, "got text. Number them"),
}


@pytest.mark.parametrize(("groups", "message"), GROUPS.values(), ids=GROUPS)
def test_groups_that_are_no_codes(groups, message):
    refused(MAKE["balance_groups"], message, groups=groups)
    with pytest.raises(ValueError, match=message):
        modulation.group_aucs(SCORES, BATCH["labels"], groups, num_groups=2)


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "message"), GROUPS.values(), ids=GROUPS)
def test_groups_that_are_no_codes_where_modalities_come_first(groups, message):
    refused(MAKE["multifair"], message, groups=groups)
    with pytest.raises(ValueError, match=message):
        modulation.multifair_penalty(**PENALTY | {"groups": groups})


def test_traced_groups_are_of_whole_numbers_too():
    def auc(groups):
        return modulation.group_aucs(SCORES, BATCH["labels"], groups, num_groups=2)

    with pytest.raises(ValueError, match="got float32. Number them"):
        jax.jit(auc)(jnp.ones(4))
    jax.jit(auc)(jnp.full(4, 2))


@pytest.mark.slow
def test_rows_without_a_group_are_taken_beside_others():
    for kind in (np.array, jnp.array, list):
        groups = kind([0, 0, -1, -5])
        found = modulation.group_aucs(SCORES, BATCH["labels"], groups, num_groups=2)
        assert found.defined.tolist() == [[True, False]] * 2


@pytest.mark.slow
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize("kind", [float, int])
def test_presence_in_numbers(make, kind):
    present = np.array([[1, 0], [1, 1], [0, 1], [1, 1]])
    scores = jnp.array([[0.9, 0.5], [0.3, 0.4], [0.6, 0.1], [0.2, 0.7]])
    tx = make(LABELS, NAMES)
    batch = BATCH | {"unimodal_scores": scores}
    found, wanted = (
        tx.update(PARAMS, tx.init(PARAMS), **batch, present=jnp.asarray(given))
        for given in (present.astype(kind), present.astype(bool))
    )
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.slow
def test_without_a_compiler_updates_and_states_are_those_with_one():
    """Beside tests of wrong arguments, whose operations one by one it shares."""
    tx = MAKE["multifair"](LABELS, NAMES)
    found = wanted = tx.init(PARAMS)
    update = jax.jit(tx.update)
    for scores in ([0.9, 0.3, 0.6, 0.2], [0.1, 0.8, 0.4, 0.7]):
        scores = jnp.array(scores)
        batch = BATCH | {"unimodal_scores": jnp.stack([scores, scores**2], axis=1)}
        one, found = tx.update(PARAMS, found, **batch)
        other, wanted = update(PARAMS, wanted, **batch)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
            (one, found),
            (other, wanted),
        )
    assert not np.array_equal(one["image"], PARAMS["image"])


@pytest.mark.slow
def test_padding_of_minus_1_is_no_coding():
    tx = MAKE["balance_modalities"](LABELS, NAMES)
    padded = {**BATCH, "labels": jnp.array([1, 0, -1, -1])}
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), **padded)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_groups": 2.0}, "num_groups must be a static Python int"),
        ({"num_groups": 0}, "num_groups must be at least 1; got 0"),
    ],
)
def test_numbers_of_groups_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        modulation.group_aucs(SCORES, BATCH["labels"], **arguments)


@pytest.mark.slow
def test_lists_and_numbers_of_presence():
    scores = [[0.9], [0.4], [0.1]]
    found = modulation.group_aucs(scores, [1, 1, 0], present=[[1.0], [0.0], [1.0]])
    assert found.values.tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: modulation.modality_balance(jnp.ones(3), jnp.ones(1)),
            r"previous must have shape \(3,\), as auc; got \(1,\)",
        ),
        (
            lambda: modulation.modality_balance(
                jnp.ones(3), jnp.ones(3), observed=jnp.ones(1, bool)
            ),
            r"observed must have shape \(3,\), as auc; got \(1,\)",
        ),
        (
            lambda: modulation.contribution_balance(
                jnp.ones(3), alpha=1.0, observed=jnp.ones(1, bool)
            ),
            r"observed must have shape \(3,\), as contributions; got \(1,\)",
        ),
        (
            lambda: modulation.fairness_factors(
                jnp.ones((2, 3)), jnp.ones(2), strength=1.0, threshold=1.0
            ),
            r"shares must have shape \[G\] .* got \(2,\) and \(2, 3\)",
        ),
        (
            lambda: modulation.fairness_gap(
                jnp.ones((2, 3)), observed=jnp.ones(3, bool)
            ),
            r"observed must have shape \(2, 3\), as group_auc; got \(3,\)",
        ),
    ],
)
def test_shapes_that_do_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call()
