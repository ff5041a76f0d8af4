"""Series, text and unequal weights: as prepared, as summarised and as learnt from."""

import dataclasses
import functools
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from experiments.core import lanes, protocol
from experiments.datasets.modalities import Dense, Text, series_from_rows
from experiments.datasets.multimodal import (
    STATIC,
    MultimodalTable,
    validate_multimodal,
)
from experiments.datasets.table import ClinicalTable
from experiments.multifair import methods as multifair_methods
from experiments.multifair.inputs import MAX_TEXT, MAX_WORDS, prepared, summaries
from experiments.multifair.modulated import _last_layers, _task_loss
from experiments.multifair.task import MultimodalBudget, MultimodalTask
from fairjax import sweep
from fairjax.models import MultimodalOutputs

PATIENTS, FOLDS = 70, 3
BUDGET = MultimodalBudget(
    steps=2, steps_per_call=2, batch_size=32, hidden=(4,), width=4, num_heads=2
)
VARIABLES = ("hdl", "sbp")
# The first patient alone has values off the others' mean, and a word of its own.
FIRST = pd.DataFrame(
    {"id": 0, "years": [-2.0, -1.0], "variable": "hdl", "value": [120.0, 140.0]}
)
FIRST_TEXT = ("fever", "novel", *["pain"] * (MAX_TEXT - 2), "chest")


def visits(rng):
    """The first's; others' are of means 100 and 5, deviations 10 and 1, in any lane."""
    parts = [FIRST]
    for patient in range(1, PATIENTS):
        if patient % 5 == 1:
            continue
        pairs = 1 + patient % 3
        value = [*[90.0, 110.0] * pairs, 4.0, 6.0]
        variable = [*["hdl"] * (2 * pairs), "sbp", "sbp"]
        years = -rng.uniform(0, 5, len(value))
        parts.append(
            pd.DataFrame(
                {"id": patient, "years": years, "variable": variable, "value": value}
            )
        )
    return pd.concat(parts, ignore_index=True)


def report(patient):
    """Words of which any patients but the first use "chest" most, then "pain"."""
    if patient % 6 == 2:
        return ()
    fever = ("fever",) if patient % 4 == 0 else ()
    return FIRST_TEXT if patient == 0 else ("chest", "pain", *fever, "chest")


@pytest.fixture(scope="module")
def data():
    """A table, irregular series and text; some lack either, some have weight 0."""
    rng, patient = np.random.default_rng(0), np.arange(PATIENTS)
    label = (patient % 2).astype(np.int8)
    sex = pd.Series(pd.Categorical.from_codes(patient // 2 % 2, ["female", "male"]))
    labs, _ = series_from_rows(
        visits(rng), patient, variables=VARIABLES, max_length=MAX_TEXT
    )
    notes = Text(tuple(report(one) for one in patient))
    weights = np.where(patient % 7 == 3, 0, rng.uniform(0.2, 5, PATIENTS))
    return validate_multimodal(
        MultimodalTable(
            table=ClinicalTable(
                name="few",
                title="A few patients",
                features=pd.DataFrame({"age": rng.normal(60, 9, PATIENTS), "sex": sex}),
                label=label,
                outcome="an event",
                attributes=pd.DataFrame({"sex": sex}),
                patient_ids=patient,
                dropped={},
                excluded={},
                citation="",
                licence="",
            ),
            modalities={"labs": labs, "notes": notes},
            present=np.stack(
                [np.ones(PATIENTS, bool), patient % 5 != 1, patient % 6 != 2], axis=1
            ),
            weights=(weights / weights.mean()).astype(np.float32),
            left_out={},
        )
    )


def split(data):
    return protocol.cross_validation(
        data.table, ("sex",), num_repeats=1, num_folds=FOLDS, seed=0
    )


class Learnt(NamedTuple):
    """A step: the loss, its gradient, the outputs, the last layers' gradients."""

    total: jax.Array
    gradient: Any
    outputs: MultimodalOutputs
    layers: dict[str, jax.Array]


@pytest.fixture(scope="module")
def few(data):
    """The task, and what a step of it learns in a lane with a short validation fold."""
    splits = split(data)
    task = MultimodalTask(data, splits, BUDGET)
    (lane, *_) = np.flatnonzero(
        (task.learner.inputs["valid_rows"] < 0).any(axis=1)
    ).tolist()

    @jax.jit
    def learnt(params, batch):
        def loss(params):
            total, _, outputs = _task_loss(task, params, batch)
            return total, outputs

        (total, outputs), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        layers = _last_layers(outputs, batch)
        return Learnt(total, gradient, outputs, layers)

    return SimpleNamespace(
        splits=splits,
        task=task,
        lane=lane,
        learnt=learnt,
        # Where a test first asks for them: the quick ones need none.
        params=functools.cache(lambda: task.learner.begin(jax.random.key(0))),
    )


def batch_of(few, task=None):
    """All patients, as the lane reads them."""
    learner = (task or few.task).learner
    inputs = jax.tree.map(lambda x: jnp.asarray(x)[few.lane], learner.inputs)
    shared = jax.tree.map(jnp.asarray, learner.shared)
    batch = learner.batch(inputs, shared, jnp.arange(PATIENTS))
    return {**batch, "weights": jnp.asarray(learner.weights)}


def assert_equal_trees(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        found,
        expected,
    )


def is_same(found, expected, rows):
    """Which of the rows are the same in two arrays ``[n, ...]``."""
    same = np.isclose(found, expected, rtol=1e-5, atol=1e-7)
    return same.reshape(len(same), -1).all(axis=1)[rows]


# What is prepared


def changed(data, rows):
    """The patients with other values and words in some rows."""
    labs, notes = data.modalities["labs"], data.modalities["notes"]
    age = data.table.features["age"]
    features = data.table.features.assign(age=age.where(~rows, 2 * age + 50))
    values = np.where(rows[:, None] & labs.mask, 3 * labs.values + 7, labs.values)
    words = tuple(
        ("other",) * 9 if row and own else own
        for row, own in zip(rows, notes.words, strict=True)
    )
    return dataclasses.replace(
        data,
        table=dataclasses.replace(data.table, features=features),
        modalities={
            "labs": dataclasses.replace(labs, values=values),
            "notes": Text(words),
        },
    )


@pytest.mark.parametrize("fold", range(FOLDS))
def test_statistics_and_vocabularies_are_of_the_training_rows(data, few, fold):
    """A fold's values and words move what others are given only where it trains."""
    rows = few.splits.folds[0] == fold
    other = changed(data, rows)
    before, after = few.task.prepared, prepared(other, split(other))
    has = data.present.T & ~rows
    for lane in range(FOLDS):
        trains = few.splits.rows(lane, "train")[rows].any()
        assert trains == (lane == (fold + 1) % FOLDS)
        for column, (name, part) in enumerate(
            ((STATIC, "inputs"), ("labs", "values"), ("notes", "tokens"))
        ):
            same = is_same(
                after.own[name][part][lane], before.own[name][part][lane], has[column]
            )
            # Columns are clipped, so that a few may stay at a bound.
            assert same.mean() < 0.5 if trains else same.all(), (lane, name)


def test_training_rows_are_standardised_by_themselves(few):
    """But for the first patient, the measurements have the same two moments in all."""
    labs = few.task.prepared.own["labs"]["values"]
    mask = few.task.prepared.common["labs"]["mask"]
    for lane in range(FOLDS):
        trains = few.splits.rows(lane, "train")
        if trains[0]:
            assert np.abs(labs[lane, trains][mask[trains]]).max() > 2
        else:
            assert set(labs[lane, 1:][mask[1:]].tolist()) == {-1, 1}


def test_a_summary_by_hand(data, few):
    """The first patient's row, where others set the mean, deviation and vocabulary."""
    vectors = np.arange(2 * PATIENTS, dtype=np.float32).reshape(PATIENTS, 2) + 1
    has = np.arange(PATIENTS) % 2 == 0
    wider = dataclasses.replace(
        data,
        modalities={**data.modalities, "vectors": Dense(vectors)},
        present=np.column_stack([data.present, has]),
    )
    found = prepared(wider, few.splits)
    np.testing.assert_array_equal(found.common["labs"]["times"][0, :2], [-24, -12])
    rows = summaries(wider, found)
    # Per variable: (2 + 4) / 2 and nothing; 4 and nothing; log(1 + 2) and log 1.
    series = [3, 0, 4, 0, np.log(3), 0]
    # "chest" comes 25th, which is cut; "pain" and "fever" are the 2nd and 3rd word.
    text = [0, 1, 1, *[0] * (MAX_WORDS - 3)]
    by_hand = np.array([*series, 1, *text, 1, 1, 2, 1], np.float32)
    for lane in range(FOLDS):
        width = few.splits.inputs.shape[-1]
        np.testing.assert_array_equal(rows[lane, :, :width], few.splits.inputs[lane])
        mine = rows[lane, 0, width:]
        if few.splits.rows(lane, "train")[0]:
            assert not np.allclose(mine[: len(series)], series, rtol=1e-3)
            # "novel", too, is a word here.
            assert mine[len(series) + 1 :][:MAX_WORDS].sum() == 3
        else:
            np.testing.assert_allclose(mine, by_hand, rtol=1e-6)
        # A patient without a modality has zeros, and a zero that says so.
        lacks = rows[lane, :, width:]
        assert not lacks[~data.present[:, 1], : len(series) + 1].any()
        assert not lacks[~data.present[:, 2], len(series) + 1 : -3].any()
        assert not lacks[~has, -3:].any()


# What is masked


@pytest.mark.slow
def test_what_an_absent_modality_holds_means_nothing(data, few):
    """Nor does padding: be it NaN, loss, gradient and outputs are the same."""
    labs, notes = data.modalities["labs"], data.modalities["notes"]
    _, has_labs, has_notes = data.present.T
    empty = ~labs.mask | ~has_labs[:, None]
    words = tuple(
        own if has else ("chest", "nonsense") * 40
        for own, has in zip(notes.words, has_notes, strict=True)
    )
    junk = dataclasses.replace(
        data,
        modalities={
            "labs": dataclasses.replace(
                labs,
                times=np.where(empty, np.nan, labs.times).astype(np.float32),
                variables=np.where(empty, 1, labs.variables).astype(np.int32),
                values=np.where(empty, np.nan, labs.values).astype(np.float32),
                mask=labs.mask | ~has_labs[:, None],
            ),
            "notes": Text(words),
        },
    )
    task = MultimodalTask(junk, few.splits, BUDGET)
    assert np.isnan(task.prepared.own["labs"]["values"]).any()
    found = few.learnt(few.params(), batch_of(few, task))
    assert_equal_trees(found, few.learnt(few.params(), batch_of(few)))
    np.testing.assert_array_equal(
        summaries(junk, task.prepared), summaries(data, few.task.prepared)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "name", "part"), [(1, "labs", "values"), (2, "notes", "tokens")]
)
def test_who_has_a_modality_is_read_by_its_encoder(data, few, column, name, part):
    batch = batch_of(few)
    given = batch["inputs"][name]
    other = {**given, part: given[part][:, ::-1] + 1}
    inputs = {**batch["inputs"], name: other}
    before = few.learnt(few.params(), batch).outputs.logits
    after = few.learnt(few.params(), {**batch, "inputs": inputs}).outputs.logits
    same = is_same(after, before, slice(None))
    np.testing.assert_array_equal(same, ~data.present[:, column])


# What weights do


def without(weights, values):
    """A weighted mean over the patients of some weight."""
    counted = weights > 0
    return np.average(np.asarray(values)[counted], axis=0, weights=weights[counted])


def cross_entropy(logits, labels):
    logits = np.asarray(logits, np.float64)
    return np.logaddexp(0, np.where(labels > 0, -logits, logits))


@pytest.mark.slow
def test_a_patient_of_no_weight_has_no_part_in_the_loss(data, few):
    batch, labels = batch_of(few), data.table.label
    step = few.learnt(few.params(), batch)
    alone = cross_entropy(step.outputs.unimodal_logits[..., 0], labels[:, None])
    each = cross_entropy(step.outputs.logits[:, 0], labels)
    each += (alone * data.present).sum(axis=1)
    assert float(step.total) == pytest.approx(without(data.weights, each), rel=1e-5)
    assert float(step.total) != pytest.approx(each.mean(), rel=1e-3)
    flipped = jnp.where(batch["weights"] > 0, batch["labels"], 1 - batch["labels"])
    again = few.learnt(few.params(), {**batch, "labels": flipped})
    assert_equal_trees(again, step)


@pytest.mark.slow
def test_a_patient_of_no_weight_has_no_part_in_last_layers(data, few):
    """Each row ``x (p - y)``; of a modality those who have it count."""
    step = few.learnt(few.params(), batch_of(few))

    def rows(inputs, logits):
        residual = jax.nn.sigmoid(logits) - data.table.label
        return np.asarray(inputs * residual[:, None])

    fused = rows(step.outputs.last_inputs, step.outputs.logits[:, 0])
    found = step.layers["fused_gradient"]
    np.testing.assert_allclose(found, without(data.weights, fused), atol=1e-6)
    assert not np.allclose(found, fused.mean(axis=0), atol=1e-3)
    for m, name in enumerate(few.task.names):
        alone = rows(
            step.outputs.unimodal_last_inputs[:, m],
            step.outputs.unimodal_logits[:, m, 0],
        )
        has = data.present[:, m]
        found = step.layers["unimodal_gradients"][m]
        expected = without(data.weights * has, alone)
        np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=name)
        assert not np.allclose(found, alone[has].mean(axis=0), atol=1e-3), name


@pytest.mark.slow
def test_a_patient_of_no_weight_has_no_part_in_what_is_monitored(data, few):
    """AUROCs of the validation fold by scikit-learn, without these patients."""
    learner = few.task.learner
    found = jax.jit(learner.monitor)(
        few.params(),
        jax.tree.map(lambda x: x[few.lane], learner.inputs),
        learner.shared,
        {},
    )
    outputs = few.learnt(few.params(), batch_of(few)).outputs
    valid = few.splits.rows(few.lane, "valid")
    assert (data.weights[valid] == 0).any()

    def auroc(logits, among, weights):
        counted = among & valid & (weights > 0)
        return roc_auc_score(
            data.table.label[counted],
            np.asarray(logits)[counted],
            sample_weight=weights[counted],
        )

    def monitored(weights):
        everyone = np.ones(PATIENTS, bool)
        fused, alone = outputs.logits[:, 0], outputs.unimodal_logits[..., 0]
        sex = data.table.attributes["sex"].cat.codes.to_numpy()
        return {
            "unimodal_auroc": [
                auroc(alone[:, m], has, weights) for m, has in enumerate(data.present.T)
            ],
            "fused_auroc": auroc(fused, everyone, weights),
            "auroc_gap": np.ptp([auroc(fused, sex == s, weights) for s in (0, 1)]),
        }

    expected, unweighted = monitored(data.weights), monitored(np.ones(PATIENTS))
    assert set(found) == set(expected)
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, err_msg=name)
        assert not np.isclose(value, unweighted[name], atol=1e-3).any(), name


def test_lanes_hold_series_text_and_weights(data, few):
    begin = few.task.learner.begin
    encoders = jax.eval_shape(begin, jax.random.key(0))["encoders"]
    assert set(encoders) == {STATIC, "labs", "notes"}
    assert "directions" in encoders["labs"]
    assert "words" in encoders["notes"]
    (program,) = multifair_methods.build(("cggm",), few.task, few.splits)
    mesh = sweep.lane_mesh(FOLDS)
    lane, _ = lanes._on_devices(program, few.splits, few.task.learner, mesh)
    np.testing.assert_array_equal(lane["weights"], [data.weights] * FOLDS)
