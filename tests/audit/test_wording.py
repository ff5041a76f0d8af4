"""The audit's sentences: what they claim, what they name, what they leave open."""

import itertools
import re

import hypothesis
import pytest
from hypothesis import strategies as st

from fairjax.audit import glossary, limits, tripod, wording
from fairjax.audit.page import SECTIONS
from fairjax.audit.rules import GAP_METRICS, RATE_METRICS
from tests.audit.example import FORMULA, HOSTILE, build, empty, example, small

GAP = {
    "model": "risk",
    "attribute": "race",
    "metric": "equalized_odds_difference",
    "estimate": 0.12,
    "lower": 0.04,
    "upper": 0.2,
    "corrected": 0.08,
    "noise_floor": 0.04,
    "p": 0.002,
    "p_adjusted": 0.01,
    "test": "permutation",
    "highest": "white",
    "lowest": "black",
    "compared": ["white", "black"],
    "left_out": [],
    "withheld": [],
    "status": "ok",
}
MODEL = {
    "name": "risk",
    "column": "risk",
    "threshold": 0.3,
    "threshold_source": "given",
}


def with_gaps(*gaps, **changes):
    data = empty()["data"] | {"models": [MODEL]}
    return empty(gaps=list(gaps), data=data, **changes)


@pytest.mark.parametrize(
    ("lower", "upper", "adjusted", "verdict"),
    [
        (0.04, 0.2, 0.01, "clear"),
        (0.04, 0.2, None, "clear"),
        (None, None, 0.01, "clear"),
        (0.04, 0.2, 0.05, "lead"),
        (0.0, 0.2, 0.01, "lead"),
        (0.0, 0.2, 0.05, "chance"),
        (0.0, 0.2, None, "chance"),
        (None, None, 0.3, "chance"),
        (None, None, None, "unknown"),
    ],
)
def test_judge(lower, upper, adjusted, verdict):
    gap = GAP | {"lower": lower, "upper": upper, "p_adjusted": adjusted}
    assert wording.judge(gap) == verdict


def test_a_ratio_is_assessed_against_one():
    ratio = GAP | {"metric": "demographic_parity_ratio", "lower": 0.6, "upper": 0.9}
    assert wording.judge(ratio) == "clear"
    assert wording.judge(ratio | {"upper": 1.0}) == "lead"


def test_the_confidence_sets_the_level_of_the_test():
    gap = GAP | {"p_adjusted": 0.07}
    assert wording.judge(gap, 0.9) == "clear"
    assert wording.judge(gap, 0.95) == "lead"


@pytest.mark.parametrize("change", [{"status": "insufficient"}, {"estimate": None}])
def test_no_estimate_is_no_verdict(change):
    assert wording.judge(GAP | change) == "unknown"


def test_a_clear_gap_is_told_with_its_numbers():
    [sentence] = with_gaps(GAP)["summary"][1:]
    assert sentence == (
        "After correction for all tests, groups differ by more than chance explains "
        "for race (equalized-odds difference 0.120, 0.040 to 0.200, 3.0 times the gap "
        "that chance alone gives on average; highest white, lowest black)."
    )


def test_an_interval_that_includes_zero_is_within_chance():
    [sentence] = with_gaps(GAP | {"lower": 0.0, "p_adjusted": 0.4})["summary"][1:]
    assert "may be due to chance for race (0.120, 0.000 to 0.200)" in sentence
    assert "does not show that the groups are equal" in sentence


def test_more_than_three_clear_gaps_are_counted():
    gaps = [GAP | {"attribute": f"a{n}", "corrected": n / 10} for n in range(5)]
    [sentence] = with_gaps(*gaps)["summary"][1:]
    assert all(f"a{n} (" in sentence for n in (4, 3, 2))
    assert "a1 (" not in sentence
    assert sentence.endswith("and 2 more.")


def test_a_gap_stands_for_its_attribute_in_the_order_of_the_headlines():
    gaps = [
        GAP | {"metric": m, "estimate": 0.3}
        for m in ("auroc_difference", "equal_opportunity_difference")
    ]
    [headline] = wording.headlines(with_gaps(*gaps, GAP | {"metric": "other"}))
    assert headline.metric == "equal_opportunity_difference"


def test_several_models_are_named():
    text = " ".join(example()["summary"])
    assert "risk and new_risk were audited on 4,000 rows from 3,800 patients" in text
    assert "race in risk" in text
    assert "in risk" not in " ".join(small()["summary"])


def test_groups_that_were_not_assessed_are_named():
    [sentence] = [s for s in example()["summary"] if s.startswith("Not assessed")]
    for name in (HOSTILE, FORMULA, "missing"):
        assert (f"= {name}" in sentence) == (name != FORMULA)
    assert "2 intersections" in sentence
    [sentence] = [s for s in example()["summary"] if s.startswith("Suppressed")]
    assert f"race = {FORMULA}, and 2 intersections" in sentence


def test_suppressed_decisions_are_named_for_each_model():
    groups = [
        {
            "model": model,
            "attribute": "race",
            "group": group,
            "metric": metric,
            "status": "suppressed",
        }
        for model, group, metric in (
            ("risk", "black", "accuracy"),
            ("risk", "white", "accuracy"),
            ("new", "black", "accuracy"),
            ("new", "black", "auroc"),
        )
    ]
    cohort = [{"attribute": "race", "group": "white", "status": "suppressed"}]
    data = empty()["data"] | {"models": [MODEL, MODEL | {"name": "new"}]}
    text = empty(groups=groups, cohort=cohort, data=data)["summary"][-1]
    assert text == (
        "Suppressed to protect small counts: race = white; decisions of risk for "
        "race = black; decisions of new for race = black; ranking and calibration of "
        "new for race = black."
    )


def test_the_summary_names_every_clear_gap_that_the_headline_counts():
    slope = GAP | {"metric": "calibration_slope_difference", "p_adjusted": 0.001}
    quiet = GAP | {"lower": 0.0, "p_adjusted": 0.4}
    sentence = with_gaps(quiet, slope)["summary"][1]
    assert sentence == (
        "Beyond chance after correction: the calibration-slope difference for race "
        "is 0.120 (0.040 to 0.200)."
    )
    part = GAP | {"metric": "equal_opportunity_difference"}
    # Clear equalized odds speak for their parts; else a part is named.
    assert len(with_gaps(GAP, part)["summary"]) == 2
    assert "equal-opportunity" in with_gaps(quiet, part)["summary"][1]
    also = [slope | {"attribute": f"a{n}", "metric": "x_difference"} for n in range(5)]
    sentence = with_gaps(GAP, slope, *also)["summary"][2]
    assert sentence.startswith("Also beyond chance")
    assert "calibration-slope" in sentence
    assert sentence.endswith("and 2 more.")


def test_a_gap_of_the_groups_that_are_left_is_told_as_that():
    gap = GAP | {"lower": 0.0, "p_adjusted": 0.4, "withheld": ["Asian"]}
    assert "for the groups shown of race (0.120" in with_gaps(gap)["summary"][1]


def test_discovery_is_told_with_the_corrected_p():
    text = " ".join(example()["summary"])
    assert "Among 43 groups searched" in text
    assert "0.520 against 0.660 elsewhere (p = 0.004 after correction for" in text
    quiet = [d | {"p_corrected": 0.2} for d in example()["discovery"]]
    text = " ".join(wording.words(example() | {"discovery": quiet})["summary"])
    assert "that can be shown stands out after correction for the search" in text
    assert "0.660 elsewhere" not in text


def test_comparison_and_gate():
    text = " ".join(example()["summary"])
    assert "new_risk against risk is positive-sum for sex (" in text
    assert "inconclusive for" in text
    assert "The gate has 3 rules: 1 failed, 1 passed and 1 undecided." in text


def test_the_summary_is_short_and_claims_no_compliance():
    for document in (example(), small(), empty()):
        assert 1 <= len(document["summary"]) <= 10
        text = " ".join(
            [
                *document["summary"],
                *document["limits"],
                *(topic["topic"] for topic in document["tripod_ai"]),
            ]
        )
        assert not re.search(r"compl(y|ies|ian)|\bnan\b|None\b|\bfair\b", text)
        sentences = [*document["summary"], *document["limits"]]
        assert all(s.endswith(".") and s[0] == s[0].upper() for s in sentences)


def test_limits_follow_the_facts():
    many = " ".join(example()["limits"])
    few = " ".join(empty()["limits"])
    for phrase in (
        "taken as the truth",
        "hold the model fixed",
        "nothing here says what causes it",
        "drift",
    ):
        assert phrase in many
        assert phrase in few
    assert "rows were taken as independent patients" in few
    assert "rows were taken as independent patients" not in many
    for phrase in (
        "3,800 patients have 4,000 rows",
        "12 of 4,012 rows were left out (score missing: 12)",
        "Groups and rates with counts below 11 are suppressed",
        "Missing values of insurance",
        "found by search are leads",
        "Models are compared",
        "48 gaps were tested. Adjusted p-values use Holm's",
        "section on threshold sensitivity",
    ):
        assert phrase in many
        assert phrase not in few


@pytest.mark.parametrize(
    ("model", "phrase"),
    [
        ({"threshold": None}, "Decisions were taken as given"),
        ({"threshold_source": "youden on validation rows"}, "chosen on other rows"),
    ],
)
def test_limits_of_thresholds(model, phrase):
    data = empty()["data"] | {"models": [MODEL | model]}
    assert phrase in " ".join(empty(data=data)["limits"])


def test_limits_of_attributes():
    attributes = [
        {"name": n, "levels": ["a"], "binned": b, "intersection": False}
        for n, b in (("age", "cut at 18 and 65"), ("sex", None))
    ]
    found = " ".join(empty(data=empty()["data"] | {"attributes": attributes})["limits"])
    assert "age was cut into categories" in found
    assert "Intersections of attributes were not tabulated" in found


def test_topics_lead_to_sections_that_the_report_has():
    anchors = {anchor for anchor, _, _ in SECTIONS}
    for document in (example(), empty()):
        for topic in document["tripod_ai"]:
            assert topic["section"] in anchors
            assert 1 <= int(topic["item"]) <= 27
    sections = {topic["section"] for topic in empty()["tripod_ai"]}
    assert not sections & {"gaps", "discovery", "comparison", "performance"}
    assert {t["section"] for t in example()["tripod_ai"]} >= {"gaps", "comparison"}
    assert "BMJ 2024;385:e078378" in tripod.GUIDELINE


numbers = st.none() | st.floats(0, 1)


@pytest.mark.slow
@hypothesis.given(
    st.fixed_dictionaries(
        {
            "estimate": numbers,
            "lower": numbers,
            "upper": numbers,
            "corrected": numbers,
            "noise_floor": numbers,
            "p": numbers,
            "p_adjusted": numbers,
            "highest": st.none() | st.text(max_size=5),
            "lowest": st.none() | st.text(max_size=5),
            "status": st.sampled_from(["ok", "insufficient", "empty", "suppressed"]),
        }
    )
)
def test_any_gap_is_told_once(change):
    gap = GAP | change
    verdict = wording.judge(gap)
    sentences = with_gaps(gap)["summary"][1:]
    assert len(sentences) == 1
    told = {
        "clear": "more than chance explains",
        "lead": "a lead, not a finding",
        "chance": "may be due to chance",
        "unknown": "too few patients to estimate",
    }
    if gap["status"] == "suppressed":
        told["unknown"] = "too many groups are suppressed"
        assert wording.explain(gap) == "suppressed"
    for kind, phrase in told.items():
        assert (phrase in sentences[0]) == (kind == verdict)
    assert wording.explain(gap)


def test_the_glossary_explains_what_the_document_has():
    kinds = ("overall", "groups", "gaps", "sensitivity", "discovery")
    used = {entry["metric"] for kind in kinds for entry in example()[kind]}
    assert used <= set(glossary.METRICS)
    known = {*RATE_METRICS, *GAP_METRICS, "expected_calibration_error"}
    assert set(glossary.METRICS) == known
    for entry in glossary.METRICS.values():
        assert entry.formula.endswith(".")
        assert entry.title[0].isupper()
    shorts = [entry.short for entry in glossary.METRICS.values()]
    assert len(shorts) == len(set(shorts))


def test_the_example_is_as_the_tests_need_it():
    statuses = {c["status"] for c in example()["cohort"]}
    assert statuses == {"ok", "insufficient", "empty", "suppressed"}
    verdicts = {wording.judge(g) for g in example()["gaps"]}
    assert {"clear", "chance", "lead"} <= verdicts
    assert build(rows=900, models=1) == build(rows=900, models=1)
    names = [a["name"] for a in example()["data"]["attributes"]]
    assert names == ["sex", "race", "insurance", "sex × race"]
    assert all(limits.limits(d) for d in (example(), small()))
    assert not any(
        a["metric"] == b["metric"] and a["group"] == b["group"]
        for a, b in itertools.pairwise(example()["groups"])
    )
