"""Thresholds that rules choose, against every candidate."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_curve

from fairjax.audit._errors import AuditError
from fairjax.audit.reading.thresholds import (
    choose_threshold,
    decide,
    describe_threshold_rule,
    parse_threshold_rule,
)

LABELS = np.array([0, 0, 0, 0, 1, 0, 1, 1, 0, 1], np.int8)
SCORES = np.array([0.05, 0.1, 0.2, 0.3, 0.35, 0.4, 0.4, 0.7, 0.8, 0.9])


@pytest.mark.parametrize(
    ("rule", "threshold"),
    [
        # TPR − FPR: .9 → 1/4, .8 → 1/12, .7 → 1/3, .4 → 5/12, .35 → 2/3.
        ("youden", 0.35),
        # F1: .9 → 2/5, .8 → 2/6, .7 → 4/7, .4 → 6/9, .35 → 8/10, .3 → 8/11.
        ("f1", 0.35),
        # Of ten, four are positive; at .7 three are flagged, at .4 five: the higher.
        ("prevalence", 0.7),
        ("sensitivity:0.25", 0.9),
        ("sensitivity:0.5", 0.7),
        ("sensitivity:0.51", 0.4),
        ("sensitivity:1", 0.35),
    ],
)
def test_by_hand(rule, threshold):
    assert choose_threshold(rule, LABELS, SCORES) == threshold


def test_of_equal_thresholds_the_highest():
    labels = np.array([1, 0, 1, 0], np.int8)
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    # TPR − FPR is .5 at .9 and at .7.
    assert choose_threshold("youden", labels, scores) == 0.9


samples = st.tuples(
    st.lists(st.integers(0, 1), min_size=12, max_size=12),
    st.lists(st.integers(0, 6), min_size=12, max_size=12),
)


@pytest.mark.slow
@given(samples, st.sampled_from(["youden", "f1", "prevalence", "sensitivity:0.8"]))
def test_no_candidate_is_better(sample, rule):
    labels, scores = np.array(sample[0], np.int8), np.array(sample[1]) / 8
    assume(0 < labels.sum() < 12)
    chosen = choose_threshold(rule, labels, scores)
    assert chosen in scores

    def tpr(t):
        return decide(scores, t)[labels == 1].mean()

    def fpr(t):
        return decide(scores, t)[labels == 0].mean()

    worth = {
        "youden": lambda t: tpr(t) - fpr(t),
        "f1": lambda t: f1_score(labels, decide(scores, t)),
        "prevalence": lambda t: -abs(decide(scores, t).mean() - labels.mean()),
        "sensitivity:0.8": lambda t: float(tpr(t) >= 0.8),
    }[rule]
    for candidate in np.unique(scores):
        assert worth(chosen) >= worth(candidate) - 1e-12
        if candidate > chosen:
            assert worth(chosen) > worth(candidate) - 1e-12
            assert not worth(candidate) > worth(chosen) - 1e-12


def test_youden_on_many_rows_is_that_of_the_roc_curve():
    rng = np.random.default_rng(0)
    scores = rng.random(5000).round(3)
    labels = (rng.random(5000) < scores**2).astype(np.int8)
    fpr, tpr, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    best = np.argmax(tpr - fpr)
    assert choose_threshold("youden", labels, scores) == thresholds[best]


def test_the_order_of_rows_does_not_matter():
    order = np.random.default_rng(0).permutation(len(LABELS))
    for rule in ("youden", "f1", "prevalence", "sensitivity:0.9"):
        assert choose_threshold(rule, LABELS[order], SCORES[order]) == (
            choose_threshold(rule, LABELS, SCORES)
        )


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
def test_both_classes_are_needed(labels):
    with pytest.raises(
        AuditError, match="must include rows with and without the outcome"
    ):
        choose_threshold(
            "youden", np.array(labels, np.int8), np.zeros(len(labels), float)
        )


@pytest.mark.parametrize(
    "rule", ["", "Youden", "sensitivity", "sensitivity:0", "sensitivity:90", "f1:2"]
)
def test_rules_that_do_not_exist(rule):
    with pytest.raises(AuditError, match="must be youden"):
        parse_threshold_rule(rule)


def test_rules_in_words():
    assert describe_threshold_rule("youden") == "Youden's index"
    assert "0.9" in describe_threshold_rule("sensitivity:.90")
