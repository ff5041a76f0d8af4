"""Selection: by hand, by a loop on real predictions, and blind to the test rows."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from experiments.core import protocol
from experiments.core.selection import select
from experiments.datasets import ClinicalTable


def soft_gap(scores, label, groups):
    """Σ over labels of the mean over groups of |their mean score − everyone's|."""
    total = 0.0
    for y in (0, 1):
        mine, rows = scores[label == y], groups[label == y]
        deviations = [
            abs(mine[rows == g].mean() - mine.mean()) for g in np.unique(rows)
        ]
        total += np.mean(deviations)
    return total


@pytest.mark.slow
def test_by_a_loop_on_real_predictions(splits, logits):
    erm = logits[0]
    for tolerance in (0.0, 0.002, 1.0):
        chosen = select(logits, erm, splits, tolerance=tolerance)
        for lane in range(splits.num_lanes):
            rows = splits.rows(lane, "valid")
            label = splits.table.label[rows]
            best = roc_auc_score(label, erm[lane, rows])
            loss = np.array(
                [best - roc_auc_score(label, x[lane, rows]) for x in logits]
            )
            scores = 1 / (1 + np.exp(-logits[:, lane, rows].astype(float)))
            gaps = np.array(
                [
                    np.mean(
                        [
                            soft_gap(s, label, splits.table.attributes[a][rows])
                            for a in splits.attributes
                        ]
                    )
                    for s in scores
                ]
            )
            within = loss <= tolerance + 1e-6
            assert within[0]
            assert chosen[lane] == np.where(within, gaps, np.inf).argmin()
    assert len(set(select(logits, erm, splits, tolerance=1.0))) > 1


@pytest.fixture(scope="module")
def tiny():
    """100 patients: label and sex in all four combinations, equally often."""
    label = np.tile([0, 1, 0, 1], 25).astype(np.int8)
    sex = np.tile(["f", "f", "m", "m"], 25)
    table = ClinicalTable(
        name="tiny",
        title="Tiny",
        features=pd.DataFrame({"x": np.linspace(0, 1, 100)}),
        label=label,
        outcome="death",
        attributes=pd.DataFrame({"sex": pd.Categorical(sex)}),
        patient_ids=np.arange(100),
        dropped={},
        excluded={},
        citation="",
        licence="",
    )
    return protocol.cross_validation(table, ("sex",), num_repeats=1, seed=0)


def lanes_of(splits, scores):
    """The same logits [n] in every lane."""
    return np.broadcast_to(scores.astype(np.float32), (splits.num_lanes, len(scores)))


def test_by_hand(tiny):
    label, male = tiny.table.label, tiny.table.attributes["sex"] == "m"
    sign = 2.0 * label - 1
    erm = lanes_of(tiny, 2 * sign + male)
    fair_and_right = lanes_of(tiny, 2 * sign)
    right = lanes_of(tiny, 2 * sign + 0.5 * male)
    fairest = lanes_of(tiny, 0 * sign)
    family = np.stack([right, fair_and_right, fairest])
    assert select(family, erm, tiny, tolerance=0.01).tolist() == [1] * 5
    # Half an AUROC is what a constant loses: allowed that, it is as fair, and later.
    assert select(family[[0, 2, 2]], erm, tiny, tolerance=0.6).tolist() == [1] * 5
    assert select(family[[0, 2, 2]], erm, tiny, tolerance=0.4).tolist() == [0] * 5
    # Where every setting loses more, the one that loses least.
    reversed_ = lanes_of(tiny, -sign)
    family = np.stack([reversed_, fairest, fairest])
    assert select(family, erm, tiny, tolerance=0.01).tolist() == [1] * 5


@pytest.mark.slow
def test_only_validation_rows_are_looked_at(splits, logits):
    erm = logits[0]
    chosen = select(logits, erm, splits, tolerance=0.002)
    rng = np.random.default_rng(0)
    other, other_erm = logits.copy(), erm.copy()
    for lane in range(splits.num_lanes):
        hidden = np.flatnonzero(~splits.rows(lane, "valid"))
        other[:, lane, hidden] = rng.normal(size=(len(logits), len(hidden)))
        other_erm[lane, hidden] = rng.normal(size=len(hidden))
    found = select(other, other_erm, splits, tolerance=0.002)
    np.testing.assert_array_equal(found, chosen)
    for lane in (0, 6):
        label, cells = splits.table.label.copy(), splits.cells.copy()
        test = np.flatnonzero(splits.rows(lane, "test"))
        shuffled = rng.permutation(test)
        label[test], cells[test] = label[shuffled], cells[shuffled]
        table = dataclasses.replace(splits.table, label=label)
        permuted = dataclasses.replace(splits, table=table, cells=cells)
        assert select(logits, erm, permuted, tolerance=0.002)[lane] == chosen[lane]
