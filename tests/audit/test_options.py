"""Options: what is filled in, and what is refused before any data is read."""

import json

import numpy as np
import pytest

from fairjax.audit import AuditError, Options


def options(**changes):
    given = {"outcome": "died", "scores": "risk", "attributes": ["sex", "race", "age"]}
    return Options(**(given | changes))


def test_sequences_become_tuples():
    found = options(
        scores=["old", "new"],
        thresholds=[0.3, 1],
        bins={"age": [18, 40]},
        levels={"sex": ["F", "M"]},
        fail_on="auroc() < 0.7",
    )
    assert found.scores == found.names == ("old", "new")
    assert found.thresholds == (0.3, 1.0)
    assert found.bins == {"age": (18.0, 40.0)}
    assert found.levels == {"sex": ("F", "M")}
    assert found.fail_on == ("auroc() < 0.7",)
    assert [rule.metric for rule in found.rules] == ["auroc"]
    assert found == options(
        scores=("old", "new"),
        names=("old", "new"),
        thresholds=(0.3, 1.0),
        bins={"age": (18.0, 40.0)},
        levels={"sex": ("F", "M")},
        fail_on=("auroc() < 0.7",),
    )


def test_settings_are_json_and_leave_paths_out():
    found = options(table="/home/somebody/table.csv", bins={"age": 4}).settings()
    assert json.loads(json.dumps(found)) == found
    assert "somebody" not in json.dumps(found)
    assert {
        "confidence",
        "seed",
        "replicates",
        "min_positives",
        "min_negatives",
        "suppress_below",
        "margin",
        "correction",
        "intersections",
    } <= set(found)
    assert found["attributes"] == ["sex", "race", "age"]


VALIDATED = {"validation": ("split", "val"), "threshold_rule": "youden"}


def test_one_threshold_stands_for_a_sequence():
    for one in (0.5, np.float64(0.5), [0.5]):
        assert options(thresholds=one).thresholds == (0.5,)
    assert options(thresholds=1).settings()["thresholds"] == [1.0]


@pytest.mark.parametrize(
    "changes",
    [
        VALIDATED,
        # A hospital whose rows choose the threshold may be an attribute's level.
        VALIDATED | {"validation": ("race", "a")},
        {"decisions": "flag"},
        {"thresholds": [0, 1], "scores": ["old", "new"]},
        {"separator": ";", "decimal": ","},
        {"fail_on": "equalized_odds_difference(race * sex) > .1"},
        {
            "fail_on": "equalized_odds_difference(race * sex * age) > .1",
            "max_intersection_depth": 3,
        },
        {"fail_on": "New: auroc() < .7", "names": "New"},
        {"margin": 0, "suppress_below": 11},
    ],
)
def test_options_that_go_together(changes):
    assert options(**changes).outcome == "died"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scores": []}, "no score"),
        ({"attributes": []}, "no attribute"),
        ({"scores": ["died"]}, "column 'died' is named twice, by --outcome and --sc"),
        ({"scores": ["risk", "risk"]}, "column 'risk' is named twice, by --score"),
        ({"attributes": ["died"]}, "by --outcome and --attributes"),
        ({"attributes": ["risk"]}, "by --score and --attributes"),
        ({"attributes": ["sex", "sex"]}, "'sex' is named twice, by --attributes"),
        ({"patient_id": "sex"}, "by --patient-id and --attributes"),
        ({"decisions": "risk"}, "by --score and --decisions"),
        (VALIDATED | {"validation": ("died", "1")}, "by --validation and --outcome"),
        (
            {"names": ["A", "B"]},
            "--name must have as many values as --score, in the same order: 1; got 2",
        ),
        (
            {"scores": ["a", "b"], "names": ["A", "A"]},
            "--name must be unique; got 'A', 'A'",
        ),
        (
            {"scores": ["a", "b"], "decisions": "flag"},
            "--decisions must have as many values as --score, in the same order: 2",
        ),
        ({"confidence": 95.0}, "--confidence must be above 0 and below 1"),
        ({"margin": -0.1}, "--margin must be in [0, 1); got -0.1"),
        ({"replicates": 10}, "--replicates must be 100 to 100,000; got 10"),
        ({"seed": -1}, "--seed must be 0 to 4,294,967,295"),
        ({"min_positives": 0}, "--min-positives must be 1 or more"),
        ({"suppress_below": -1}, "--suppress-below must be 0 or more"),
        ({"max_intersection_depth": 1}, "--max-intersection-depth must be 2 or more"),
        ({"separator": ";;"}, "--separator must be one character"),
        (
            {"separator": ",", "decimal": ","},
            "--separator and --decimal must differ; both are ','",
        ),
        ({"bins": {"agee": 4}}, "'agee', which is not one of --attributes; did you"),
        ({"bins": {"age": 1}}, "2 to 20 quantiles"),
        ({"bins": {"age": [40, 18]}}, "ascending numbers, such as 18,40,65; got 40,18"),
        ({"bins": {"age": [1.0, float("nan")]}}, "ascending numbers"),
        ({"bins": {"age": []}}, "; got nothing"),
        ({"bins": {"age": 4}, "levels": {"age": "a"}}, "both --bins and --levels"),
        (
            {"levels": {"sex": ["F", "F"]}},
            "--levels of 'sex' must be distinct; got 'F' twice",
        ),
        ({"levels": {"sex": ["F", ""]}}, "got an empty name"),
        (
            {"thresholds": [0.1, 0.2]},
            "--threshold must have one value, or as many as --score: 1; got 2",
        ),
        ({"thresholds": [1.5]}, "must be in [0, 1]; got 1.5"),
        (
            {"thresholds": [1.5], "logits": True},
            "to which --logits maps scores; got 1.5",
        ),
        ({"thresholds": [float("nan")]}, "must be in [0, 1]; got nan"),
        ({"thresholds": 1.5}, "must be in [0, 1]; got 1.5"),
        (
            {"levels": {"sex": [str(i) for i in range(51)]}},
            "must make at most 50 categories; got 51",
        ),
        ({"bins": {"age": list(range(50))}}, "must make at most 50 categories; got 51"),
        ({"thresholds": [0.5], "decisions": "flag"}, "contradict each other"),
        (VALIDATED | {"thresholds": [0.5]}, "--threshold and --validation contradict"),
        (
            {"threshold_rule": "youden"},
            "--validation and --threshold-rule must be given together",
        ),
        ({"validation": ("split", "val")}, "must be given together"),
        (VALIDATED | {"threshold_rule": "best"}, "--threshold-rule must be youden"),
        ({"fail_on": "auroc < 0.7"}, "cannot read the rule"),
        ({"fail_on": "auroc_difference(rase) > 0"}, "did you mean 'race'?"),
        (
            {"fail_on": "new: auroc() < 0.7"},
            "must name one of the models 'risk'; got 'new'",
        ),
        (
            {"fail_on": "auroc_difference(sex*race*age) > 0"},
            "crosses 3 attributes; this audit crosses 2",
        ),
        (
            {"fail_on": "auroc_difference(sex*race) > 0", "intersections": False},
            "this audit crosses none",
        ),
    ],
)
def test_options_that_are_refused(changes, words):
    with pytest.raises(AuditError) as caught:
        options(**changes)
    assert words in str(caught.value)
