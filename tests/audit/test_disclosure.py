"""What a reader of a whole document could learn of the counts that are suppressed."""

import json
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from fairjax.audit import AuditError, Options, audit
from tests.audit.test_audit import OPTIONS, brief, table

FLOOR = 20
DECIDED = {
    "selection_rate",
    "true_positive_rate",
    "false_positive_rate",
    "true_negative_rate",
    "false_negative_rate",
    "positive_predictive_value",
    "negative_predictive_value",
    "accuracy",
    "error_rate",
    "balanced_accuracy",
    "f1_score",
}
NAMES = ("sex", "race", "site")


def three(seed, rows=2400):
    """The table with a third attribute, and groups of a few patients."""
    rng = np.random.default_rng(seed)
    frame = table(rows, seed)
    return frame.assign(site=rng.choice(["a", "b", "c"], rows, p=[0.8, 0.185, 0.015]))


def document_of(frame, names=NAMES, **more):
    options = OPTIONS | {
        "scores": ["risk"],
        "attributes": list(names),
        "min_positives": 10,
        "min_negatives": 10,
    }
    return brief(Options(**options, **more, suppress_below=FLOOR), frame)


def small(count):
    return 0 < count < FLOOR


def groups_of(frame, document):
    """(attribute, group) -> the rows of the table."""
    found = {}
    for attribute in document["data"]["attributes"]:
        names = attribute["name"].split(" × ")
        text = frame[names].agg(", ".join, axis=1)
        for level in attribute["levels"]:
            found[attribute["name"], level] = (text == level).to_numpy()
    return found


def cells(frame, inside=None):
    """Rows of each label and decision: TN, FP, FN, TP."""
    cell = 2 * frame["died"] + (frame["risk"] >= 0.3)
    cell = cell if inside is None else cell[inside]
    return np.bincount(cell, minlength=4)


@pytest.fixture(scope="module")
def audited():
    # No more groups than other tests have, so that programs are compiled once.
    frame = three(0).replace({"race": "Asian"}, "black")
    document = document_of(frame)
    return frame, document, groups_of(frame, document)


def hidden_of(document):
    """The groups that are suppressed, and those whose decisions are."""
    whole = {
        (c["attribute"], c["group"])
        for c in document["cohort"]
        if c["status"] == "suppressed"
    }
    decided = {
        (g["attribute"], g["group"])
        for g in document["groups"]
        if g["status"] == "suppressed" and g["metric"] in DECIDED
    }
    return whole, decided


@pytest.mark.slow
def test_every_small_group_is_suppressed_and_nothing_is_said_of_it(audited):
    frame, document, inside = audited
    whole, decided = hidden_of(document)
    assert whole
    assert whole <= decided
    assert len(decided) < len(document["cohort"])
    for key, rows in inside.items():
        tn, fp, fn, tp = cells(frame, rows)
        if small(tn + fp) or small(fn + tp):
            assert key in whole
        if any(map(small, (tn, fp, fn, tp))):
            assert key in decided
    keys = ("estimate", "lower", "upper", "shrunken", "rows", "denominator")
    for room in ("cohort", "groups"):
        for entry in document[room]:
            key = entry["attribute"], entry["group"]
            if key in whole or (key in decided and entry.get("metric") in DECIDED):
                assert entry["status"] == "suppressed"
                assert {entry.get(name) for name in keys} == {None}
                assert entry["positives"] is None
    for gap in document["gaps"]:
        scored = gap["metric"].startswith(("auroc", "calibration"))
        gone = {g for a, g in (whole if scored else decided) if a == gap["attribute"]}
        assert not gone & {gap["highest"], gap["lowest"], *gap["compared"]}
    for kind in document["curves"].values():
        assert not {(c["attribute"], c["group"]) for c in kind} & whole
    for found in document["discovery"]:
        held = found["attributes"]
        name = " × ".join(n for n in NAMES if n in held)
        level = ", ".join(held[n] for n in NAMES if n in held)
        assert (name, level) in inside.keys() - decided


@pytest.mark.slow
def test_no_rate_is_a_fraction_of_a_small_count(audited):
    frame, document, inside = audited
    for entry in document["groups"]:
        share = entry["metric"] in DECIDED - {"f1_score", "balanced_accuracy"}
        if entry["estimate"] is None or not share:
            continue
        found = Fraction(entry["estimate"]).limit_denominator(int(entry["denominator"]))
        hits = round(float(found) * entry["denominator"])
        assert not small(hits)
        assert not small(entry["denominator"] - hits)
    assert any(None in c["rows"] for c in document["curves"]["calibration"])
    for curve in document["curves"]["calibration"]:
        bins = [
            (rows, round(rows * observed))
            for rows, observed in zip(curve["rows"], curve["observed"], strict=True)
            if rows is not None
        ]
        mine = inside[curve["attribute"], curve["group"]]
        rest = [mine.sum(), frame["died"][mine].sum()] - np.sum([(0, 0), *bins], axis=0)
        for rows, events in (*bins, rest):
            assert not small(events)
            assert not small(rows - events)


@pytest.mark.slow
def test_no_threshold_has_a_small_cell(audited):
    frame, document, inside = audited
    _, decided = hidden_of(document)
    swept = 0
    for entry in document["sensitivity"]:
        for threshold, value in zip(entry["threshold"], entry["estimate"], strict=True):
            if value is None:
                continue
            swept += 1
            for (name, level), rows in inside.items():
                if name == entry["attribute"] and (name, level) not in decided:
                    here = frame.assign(risk=np.where(frame["risk"] >= threshold, 1, 0))
                    assert not any(map(small, cells(here, rows)))
    assert swept


@pytest.mark.slow
def test_no_suppressed_count_is_a_sum_or_difference_of_shown_ones(audited):
    """By the rank of the system of all sums, over combinations of levels."""
    frame, document, inside = audited
    whole, decided = hidden_of(document)
    code = frame[list(NAMES)].agg(", ".join, axis=1)
    first = np.unique(code, return_index=True)[1]
    for hidden, width in ((whole, 2), (decided, 1)):
        shown = [np.ones(len(first))]
        shown += [rows[first] for key, rows in inside.items() if key not in hidden]
        rank = np.linalg.matrix_rank(np.array(shown, float))
        for key in hidden:
            counts = cells(frame, inside[key]).reshape(-1, width).sum(axis=1)
            if any(map(small, counts)):
                more = np.array([*shown, inside[key][first]], float)
                assert np.linalg.matrix_rank(more) == rank + 1, key


@pytest.mark.slow
def test_two_tables_that_differ_in_suppressed_counts_have_one_document():
    """Patients of one suppressed group move to another, and no number tells."""
    frame = three(0)
    # Levels without rows: of so many groups other tests have programs.
    levels = {"site": list("abcdef")}
    document = document_of(frame, ["site"], levels=levels)
    names = {g for _, g in hidden_of(document)[0]}
    assert names == {"b", "c"}
    moved = frame.copy()
    of_c = moved.index[moved["site"] == "c"]
    moved.loc[of_c[:4], "site"] = "b"
    assert (moved["site"] == "c").sum() == (frame["site"] == "c").sum() - 4
    again = document_of(moved, ["site"], levels=levels)
    # The p-values of the search are of all groups, by shuffling.
    for each in (document, again):
        for entry in each["discovery"]:
            assert entry["attributes"] == {"site": "a"}
            entry["p"] = entry["p_corrected"] = entry["searched"] = None
        each["summary"] = []
    assert json.dumps(document) == json.dumps(again)


def test_too_few_in_all_are_refused():
    frame = pd.DataFrame(
        {"died": np.arange(60) < 7, "risk": np.arange(60) / 60, "sex": ["F", "M"] * 30}
    )
    options = Options(
        outcome="died", scores="risk", attributes="sex", suppress_below=11
    )
    with pytest.raises(
        AuditError, match="at least 11 of 60 rows must be with the outcome"
    ):
        audit(options, frame)


@pytest.mark.slow
def test_suppression_turns_no_failed_rule_into_a_passed_one():
    """Patients of site C are missed, so that few of them are true positives."""
    rng = np.random.default_rng(0)
    rows = 2400
    site = rng.choice(["A", "B", "C"], rows, p=[0.45, 0.43, 0.12])
    died = (rng.random(rows) < 0.35).astype(int)
    chance = np.where(died == 1, np.where(site == "C", 0.05, 0.8), 0.3)
    found = rng.random(rows) < chance
    score = np.where(found, rng.uniform(0.5, 0.95, rows), rng.uniform(0, 0.45, rows))
    sex = rng.choice(["F", "M"], rows)
    frame = pd.DataFrame({"died": died, "risk": score, "site": site, "sex": sex})
    rules = [
        "equalized_odds_difference(site) > 0.2",
        "equalized_odds_difference(sex * site) > 0.2",
        "true_positive_rate(site=C) < 0.3",
        "true_positive_rate(site) < 0.3",
    ]
    options = OPTIONS | {
        "scores": ["risk"],
        "attributes": ["site", "sex"],
        "thresholds": [0.5],
        "min_positives": 10,
        "min_negatives": 10,
        "fail_on": rules,
    }
    open_, closed = (
        brief(Options(**options, suppress_below=floor), frame) for floor in (0, 11)
    )
    assert {entry["status"] for entry in open_["gate"]} == {"failed"}
    assert {entry["status"] for entry in closed["gate"]} == {"undecided"}
    for entry in closed["gate"]:
        assert "suppressed" in entry["reason"]
        assert "rules out" not in entry["reason"]
        assert "too few" not in entry["reason"]
    for gap in closed["gaps"]:
        if gap["metric"] == "equalized_odds_difference" and gap["attribute"] != "sex":
            assert gap["withheld"]
            assert not set(gap["withheld"]) & {*gap["left_out"], *gap["compared"]}
    text = " ".join(closed["summary"])
    assert "site = C" in text
    assert "none of the groups that can be shown stands out" in text
    assert "too few" not in text


# Levels without rows: of so many groups other tests have programs.
CUT = {
    "outcome": "died",
    "attributes": "race",
    "levels": {"race": list("abcde")},
    "replicates": 100,
}


def cut(rows=2400, seed=4):
    """Three groups under a score of 0 and 1 that flags few without the outcome."""
    rng = np.random.default_rng(seed)
    group = rng.choice(list("abc"), rows, p=[0.6, 0.3, 0.1])
    logit = rng.normal(-0.5, 1.2, rows)
    died = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(int)
    risk = (logit > 0).astype(float)
    for name, kept in (("b", 7), ("c", 4)):
        flagged = np.flatnonzero((group == name) & (died == 0) & (risk == 1))
        risk[flagged[kept:]] = 0
    fine = 1 / (1 + np.exp(-logit))
    return pd.DataFrame({"died": died, "risk": risk, "fine": fine, "race": group})


@pytest.mark.slow
def test_a_score_of_two_values_does_not_tell_the_decisions():
    """Its AUROC and Brier score are two equations for two suppressed counts."""
    document = brief(
        Options(**CUT, scores=["fine", "risk"], suppress_below=FLOOR), cut()
    )
    ranking = [
        g
        for g in document["groups"]
        if g["model"] == "risk" and g["metric"] not in DECIDED
    ]
    assert {g["status"] for g in ranking if g["group"] in "bc"} == {"suppressed"}
    assert all(g["estimate"] is None for g in ranking if g["group"] in "bc")
    assert {g["status"] for g in ranking if g["group"] == "a"} <= {"ok", "suppressed"}
    fine = [
        g["status"]
        for g in document["groups"]
        if g["model"] == "fine" and g["metric"] == "auroc"
    ]
    assert fine == ["ok"] * 3 + ["empty"] * 2
    # The gain over a model whose AUROC is shown would give it back.
    told = {g["group"] for c in document["comparison"] for g in c["groups"]}
    assert not told & {"b", "c"}
    for kind in ("roc", "calibration", "decision"):
        drawn = {c["group"] for c in document["curves"][kind] if c["model"] == "risk"}
        assert not drawn & {"b", "c"}
    [gap] = [
        g
        for g in document["gaps"]
        if (g["model"], g["metric"]) == ("risk", "auroc_difference")
    ]
    assert gap["estimate"] is None
    assert gap["status"] == "suppressed"


def ranking_of(document, model, group):
    return {
        entry["metric"]: entry["status"]
        for entry in document["groups"]
        if (entry["model"], entry["group"]) == (model, group)
        and entry["metric"] not in DECIDED
    }


@pytest.mark.slow
def test_the_same_two_values_at_a_harmless_threshold_are_suppressed_too():
    """No decision is suppressed of the second model, whose counts are the first's."""
    frame = cut().drop(columns="fine")
    frame["again"] = 0.1 + 0.6 * frame["risk"]
    document = brief(
        Options(
            **CUT,
            scores=["risk", "again"],
            thresholds=[0.5, 0.05],
            suppress_below=FLOOR,
        ),
        frame,
    )
    for group in "bc":
        for model in ("risk", "again"):
            assert set(ranking_of(document, model, group).values()) == {"suppressed"}


@pytest.mark.slow
def test_a_value_that_few_have_is_suppressed_though_decisions_are_not():
    frame = cut()
    # Three values, of which the highest has few without the outcome in c.
    frame["risk"] = np.where(frame["fine"] > 0.4, 0.5, 0.1)
    frame.loc[frame.query("race == 'c' and fine > 0.6 and died == 1").index, "risk"] = 1
    few = frame.query("race == 'c' and fine > 0.6 and died == 0").index[:3]
    frame.loc[few, "risk"] = 1
    document = brief(
        Options(**CUT, scores="risk", thresholds=[0.4], suppress_below=FLOOR), frame
    )
    assert set(ranking_of(document, "risk", "c").values()) == {"suppressed"}
    [told] = [s for s in document["summary"] if s.startswith("Suppressed")]
    assert "ranking and calibration for race = " in told
    assert "decisions" not in told
    rates = [g for g in document["groups"] if g["metric"] in DECIDED]
    assert not {g["status"] for g in rates} & {"suppressed"}


@pytest.mark.slow
def test_findings_do_not_tell_the_rows_of_a_split():
    frame = cut(3300).drop(columns="risk")
    site = np.where(np.arange(3300) < 900, "A", "B")
    site[3280:3294], site[3294:] = "C", "D"
    options = Options(
        **CUT | {"attributes": ["site", "race"]},
        scores="fine",
        validation=("site", "A"),
        intersections=False,
        threshold_rule="youden",
        suppress_below=FLOOR,
    )
    document = brief(options, frame.assign(site=site))
    hidden = {c["group"] for c in document["cohort"] if c["status"] == "suppressed"}
    assert {"C", "D"} <= hidden
    [finding] = [q for q in document["quality"] if q["code"] == "several_splits"]
    assert "site = C" in finding["message"]
    assert "14" not in finding["message"]
    assert "(6)" not in finding["message"]


@pytest.mark.slow
def test_rows_of_a_bin_are_not_its_patients():
    patients = np.repeat(np.arange(800), 3)
    rng = np.random.default_rng(0)
    logit = rng.normal(-0.3, 1.2, 800)[patients]
    frame = pd.DataFrame(
        {
            "died": (rng.random(2400) < 1 / (1 + np.exp(-logit))).astype(int),
            "risk": 1 / (1 + np.exp(-logit)),
            "race": np.where(patients < 400, "a", "b"),
            "pid": patients,
        }
    )
    frame["site"] = frame["race"]
    # Four patients moved between groups: more in the groups than there are.
    frame.loc[[1, 4, 7, 10], "race"] = "b"
    options = {
        "outcome": "died",
        "scores": "risk",
        "attributes": ["race", "site"],
        "intersections": False,
        "patient_id": "pid",
        "replicates": 100,
        # A tenth of a group is 120 rows, of 40 patients.
        "suppress_below": 45,
    }
    document = brief(Options(**options), frame)
    assert document["curves"] == {"roc": [], "calibration": [], "decision": []}
    assert {c["status"] for c in document["cohort"]} == {"ok"}
    patients = [c["patients"] for c in document["cohort"]]
    assert patients == [None, None, 400, 400]
    [finding] = [
        q for q in document["quality"] if q["code"] == "inconsistent_attribute"
    ]
    assert finding["rows"] is None
    assert finding["message"].startswith("Some of 800 patients")
