"""What single splits tell, where metrics are undefined in some of them."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments.intersectional.findings import beaten_in_words
from experiments.intersectional.protocols import protocols
from experiments.intersectional.results import TABLE, PerSplit
from experiments.intersectional.stability import spread, spreads
from experiments.intersectional.stages import PAPER
from fairjax.evaluation import Evaluation
from fairjax.evaluation.names import AVERAGE_ODDS, F1

LEVELS = ("ref", "one", "two", "rare")
ODDS = f"{AVERAGE_ODDS}/mean"
NAN = float("nan")


def told(folds=None, paper=None):
    """Results of the base model and of EO, with these values in single splits."""
    names = [ODDS, F1]
    names += [f"{metric}/subgroup={level}" for metric in TABLE for level in LEVELS]
    known = dict.fromkeys(names, np.array([0.4, 0.5]))
    splits = {name: np.array([0.1, 0.4, 0.3]) for name in names}
    evaluation = Evaluation(known, known, {}, {}, {})
    return SimpleNamespace(
        evaluations={"base": evaluation, "eo": evaluation},
        titles={name: c.title for name, c in PAPER.items()},
        subgroups=SimpleNamespace(levels=LEVELS, reference="ref"),
        folds=PerSplit({"base": splits | (folds or {})}, {"base": 1 / 3}),
        paper=PerSplit(
            {"base": splits, "eo": splits | (paper or {})}, {"base": 0.8, "eo": 0.2}
        ),
    )


def odds_of(level):
    return f"{AVERAGE_ODDS}/subgroup={level}"


def test_one_known_value_has_no_spread():
    assert np.isnan(spread(np.array([NAN, NAN, 0.3])))
    assert spread(np.array([0.1, NAN, 0.3])) == pytest.approx(np.sqrt(0.02))


def test_a_subgroup_that_is_hardly_known_is_not_the_calmest():
    folds = {
        odds_of("one"): np.array([0.0, 0.5, NAN]),
        odds_of("two"): np.array([0.1, 0.2, 0.3]),
        odds_of("rare"): np.array([NAN, NAN, 0.3]),
    }
    text = spreads(told(folds))
    assert "largest for one, 0.354 over 2 of 3 test folds" in text
    assert "smallest for two, 0.100 over 3 of 3 test folds" in text
    assert "Defined in fewer than two test folds: rare." in text


def test_no_subgroup_is_known():
    folds = {odds_of(level): np.full(3, NAN) for level in LEVELS}
    assert spreads(told(folds)) == (
        "Base: no subgroup is defined in two of the 3 test folds."
    )


def test_splits_that_leave_a_metric_undefined_are_counted():
    assert "from fewer than" not in "\n".join(protocols(told()))
    paper = {
        odds_of("rare"): np.array([NAN, NAN, 0.3]),
        ODDS: np.array([NAN, 0.2, 0.3]),
    }
    text = "\n".join(protocols(told(paper=paper)))
    # Of two configurations: nine metrics of four subgroups, and two means.
    assert f"Therefore 2 of {2 * (4 * len(TABLE) + 2)} values" in text
    assert "fewer than 3 splits" in text
    assert "The table above has 1 of these values" in text
    assert "EO, average odds difference of rare: 1; EO, mean distance" in text


def test_intervals_in_the_table_end_where_the_metric_does():
    paper = {ODDS: np.array([0.0, 0.9, 0.0])}
    (row,) = [x for x in protocols(told(paper=paper)) if x.startswith("| EO |")]
    assert "0.300 [0.000, 1.000]" in row


def test_nothing_is_said_to_cause_the_difference():
    paper = {ODDS: np.array([0.3, 0.6, 0.5])}
    last = protocols(told(paper=paper))[-1]
    estimate = 0.8 / 3
    assert f"minus the clean estimate is {estimate + 0.2 - 0.45:+.4f}" in last
    assert f"Elsewhere, the average difference is {estimate - 0.45:+.4f}" in last
    assert "have no intervals" in last
    assert "is the protocol's" not in last


def test_what_beats_decisions_that_ignore_the_patient():
    """A small F1 score alone does not make a configuration blind."""
    lows = {"both": (0.6, 0.7), "few selected": (0.6, 0.5), "blind": (0.49, 0.5)}
    words = beaten_in_words(0.6364, lows)
    assert "not significantly above this value: blind." in words
    assert "0.636, " in words
    assert words.endswith("above this value: few selected, blind.")
    assert beaten_in_words(0.1, {"both": (0.6, 0.7)}).count(": none.") == 2
