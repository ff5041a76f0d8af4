"""An audit from a table to a document, against scikit-learn, SciPy and NumPy."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from fairjax.audit import (
    AuditError,
    Options,
    audit,
    gate_fails,
)
from fairjax.audit.formats import select
from fairjax.audit.measure import _analysis, _pointwise
from fairjax.audit.measure._analysis import searchable
from fairjax.audit.reading.table import read
from fairjax.groups import Grouping
from tests.audit.example import VALIDATOR

OPTIONS = {
    "outcome": "died",
    "scores": ["risk", "new"],
    "attributes": ["sex", "race"],
    "thresholds": [0.3],
    "replicates": 100,
    "margin": 0.03,
    "min_positives": 20,
    "min_negatives": 20,
}


def brief(options, frame):
    """An audit at few other thresholds, whose gaps are most of what it simulates.

    The document is validated against the schema. Nothing is compiled ahead, by a
    comparison of no rows: other tests do that.
    """
    with pytest.MonkeyPatch.context() as patch:
        few = np.array([0.3, 0.6])
        patch.setattr(_pointwise, "SENSITIVITY_THRESHOLDS", few)
        patch.setattr(_analysis._Analysis, "_compile", lambda analysis: None)
        document = audit(options, frame)
    assert [error.message for error in VALIDATOR.iter_errors(document)] == []
    return document


def table(rows=2400, seed=0):
    """Black patients' scores are noisier, so that their sensitivity differs."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(["F", "M"], rows)
    race = rng.choice(["white", "black", "Asian"], rows, p=[0.7, 0.28, 0.02])
    logit = rng.normal(-1, 1.2, rows)
    died = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(int)
    shift = np.where(race == "black", -0.9, 0.0)
    scores = {
        name: np.round(1 / (1 + np.exp(-(logit + shift + rng.normal(0, s, rows)))), 4)
        for name, s in (("risk", 0.8), ("new", 0.2))
    }
    return pd.DataFrame({"died": died, **scores, "sex": sex, "race": race})


@pytest.fixture(scope="module")
def frame():
    return table()


def audited(frame):
    rules = [
        "risk: equalized_odds_difference(race) > 0.02",
        "equalized_odds_difference(race) > 0.9",
        "risk: equalized_odds_difference(sex) > 0.9",
        "risk: true_positive_rate(race=Asian) < 0.1",
    ]
    return brief(Options(**OPTIONS, fail_on=rules), frame)


@pytest.fixture(scope="module")
def document(frame):
    return audited(frame)


def only(entries, **wanted):
    found = [e for e in entries if all(e[k] == v for k, v in wanted.items())]
    assert len(found) == 1
    return found[0]


def test_it_has_the_published_shape(document):
    # Besides the schema, which every audit here is held against.
    json.dumps(document, allow_nan=False)
    assert "fairjax" not in document["versions"]
    # A frame has no name that a command could give.
    assert document["command"] is None


@pytest.mark.parametrize("model", ["risk", "new"])
@pytest.mark.parametrize("race", ["white", "black"])
def test_groups_agree_with_other_libraries(document, frame, model, race):
    rows = frame[frame["race"] == race]
    y, s = rows["died"].to_numpy(), rows[model].to_numpy()
    hit = s >= 0.3
    expected = {
        "auroc": roc_auc_score(y, s),
        "auprc": average_precision_score(y, s),
        "brier_score": brier_score_loss(y, s),
        "true_positive_rate": hit[y == 1].mean(),
        "false_positive_rate": hit[y == 0].mean(),
        "positive_predictive_value": y[hit].mean(),
        "selection_rate": hit.mean(),
        "negative_predictive_value": 1 - y[~hit].mean(),
        "true_negative_rate": 1 - hit[y == 0].mean(),
        "false_negative_rate": 1 - hit[y == 1].mean(),
        "accuracy": (hit == y).mean(),
        "error_rate": (hit != y).mean(),
        "balanced_accuracy": (hit[y == 1].mean() + 1 - hit[y == 0].mean()) / 2,
        "f1_score": 2 * (hit & (y == 1)).sum() / (hit.sum() + y.sum()),
    }
    where = {"model": model, "attribute": "race", "group": race}
    for metric, value in expected.items():
        entry = only(document["groups"], metric=metric, **where)
        assert entry["estimate"] == pytest.approx(value, rel=1e-6)
        assert entry["lower"] < value < entry["upper"]
        assert entry["status"] == "ok"
    entry = only(document["groups"], metric="true_positive_rate", **where)
    member = only(document["cohort"], attribute="race", group=race)
    assert member["prevalence"] == pytest.approx(y.mean(), rel=1e-6)
    sizes = member["rows"], member["positives"], member["negatives"]
    assert sizes == (y.size, y.sum(), y.size - y.sum())
    limits = proportion_confint(hit[y == 1].sum(), y.sum(), method="wilson")
    assert (entry["lower"], entry["upper"]) == pytest.approx(limits, rel=1e-6)
    # Boyd, Eng and Page (2013): of the logit, with 1 / (n a (1 − a)) as variance.
    area = expected["auprc"]
    spread = norm.ppf(0.975) / np.sqrt(y.sum() * area * (1 - area))
    entry = only(document["groups"], metric="auprc", **where)
    limits = expit(logit(area) - spread), expit(logit(area) + spread)
    assert (entry["lower"], entry["upper"]) == pytest.approx(limits, rel=1e-5)


@pytest.mark.parametrize("race", ["white", "black"])
def test_limits_of_the_balanced_accuracy_are_recovered_from_both_rates(document, race):
    found, *rates = (
        only(document["groups"], model="risk", attribute="race", group=race, metric=m)
        for m in ("balanced_accuracy", "true_positive_rate", "true_negative_rate")
    )
    for end in ("lower", "upper"):
        away = np.hypot(*(rate[end] - rate["estimate"] for rate in rates)) / 2
        assert abs(found[end] - found["estimate"]) == pytest.approx(away, rel=1e-5)
    assert found["lower"] < found["estimate"] < found["upper"]


def test_gaps_are_those_of_the_groups_compared(document, frame):
    """Asian patients are too few, so they take no part."""
    tpr = {
        race: (rows["risk"][rows["died"] == 1] >= 0.3).mean()
        for race, rows in frame.groupby("race")
    }
    gap = only(
        document["gaps"],
        model="risk",
        attribute="race",
        metric="equal_opportunity_difference",
    )
    assert gap["estimate"] == pytest.approx(tpr["white"] - tpr["black"], rel=1e-6)
    assert (gap["highest"], gap["lowest"]) == ("white", "black")
    assert gap["left_out"] == ["Asian"]
    assert 0 < gap["lower"] < gap["estimate"] < gap["upper"]
    # Beyond what 100 draws can show: the pair's own p-value.
    assert 0 < gap["p"] < 1e-5
    assert 0 < gap["noise_floor"] < gap["estimate"]
    assert gap["corrected"] < gap["estimate"]
    # Where every row is a patient.
    assert gap["test"] == "simultaneous interval over pairs"


def test_p_values_are_corrected_over_all_models_and_once_for_each_question(document):
    tested = [g for g in document["gaps"] if g["p"] is not None]
    questions = [g for g in tested if g["metric"] != "demographic_parity_ratio"]
    assert {g["model"] for g in tested} == {"risk", "new"}
    expected = multipletests([g["p"] for g in questions], method="holm")[1]
    found = [g["p_adjusted"] for g in questions]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for ratio in select(tested, metric="demographic_parity_ratio"):
        same = {key: ratio[key] for key in ("model", "attribute")}
        metric = "demographic_parity_difference"
        difference = only(tested, metric=metric, **same)
        assert ratio["p_adjusted"] == difference["p_adjusted"]


def test_a_group_that_one_rate_leaves_out_is_named_with_it(document):
    """Asian patients have the negatives for a false positive rate, not the others."""
    odds = only(
        document["gaps"],
        model="risk",
        attribute="race",
        metric="equalized_odds_difference",
    )
    assert odds["left_out"] == ["Asian (true positive rate)"]
    undecided = document["gate"][1]
    assert "Asian (true positive rate)" in undecided["reason"]


def test_nothing_is_shown_where_nothing_differs(document):
    gap = only(
        document["gaps"],
        model="risk",
        attribute="sex",
        metric="equalized_odds_difference",
    )
    assert gap["lower"] == 0
    assert gap["p_adjusted"] > 0.05


def test_small_groups_are_named_and_not_assessed(document):
    few = only(document["cohort"], attribute="race", group="Asian")
    assert few["status"] == "insufficient"
    assert few["rows"] == few["positives"] + few["negatives"]
    for metric in ("true_positive_rate", "auroc", "f1_score"):
        entry = only(
            document["groups"],
            model="risk",
            attribute="race",
            group="Asian",
            metric=metric,
        )
        assert entry["status"] == "insufficient"
        assert entry["estimate"] is None
    assert "race = Asian" in " ".join(document["summary"])


def test_the_gate_judges_intervals(document):
    failed, *others, passed, small = document["gate"]
    assert failed["status"] == "failed"
    # Asian patients are too few, and their gap could be any.
    assert [entry["status"] for entry in others] == ["undecided", "undecided"]
    assert passed["status"] == "passed"
    assert small["status"] == "undecided"
    assert gate_fails(document["gate"])


def test_the_better_model_gains_in_every_group(document):
    found = only(document["comparison"], attribute="all attributes")
    assert found["gain"]["lower"] > 0
    assert -0.03 < found["worst"]["lower"] < found["worst"]["estimate"]
    assert found["verdict"] == "positive-sum"
    # Of all attributes together they are named with theirs, else without.
    names = {group["group"] for group in found["groups"]}
    assert names > {"sex = F", "sex = M", "race = black", "sex × race = M, white"}
    assert "race = Asian" in found["left_out"]
    alone = only(document["comparison"], attribute="sex")
    assert [group["group"] for group in alone["groups"]] == ["F", "M"]


def test_search_finds_the_worst_group(document):
    worst = next(d for d in document["discovery"] if d["model"] == "risk")
    assert worst["attributes"]["race"] == "black"
    assert worst["p_corrected"] < 0.05
    # Two rates of two models are searched, each by at most 100 shuffles.
    least = 4 / 101
    assert all(d["p_corrected"] >= least - 1e-6 for d in document["discovery"])


def test_curves_and_thresholds_cover_every_group_compared(document):
    for kind in ("roc", "calibration", "decision"):
        groups = {
            (c["attribute"], c["group"])
            for c in document["curves"][kind]
            if c["model"] == "risk"
        }
        assert groups == {
            ("sex", "F"),
            ("sex", "M"),
            ("race", "white"),
            ("race", "black"),
        }
    sweep = only(document["sensitivity"], model="risk", attribute="race")
    at = sweep["threshold"].index(0.3)
    gap = only(
        document["gaps"],
        model="risk",
        attribute="race",
        metric="equalized_odds_difference",
    )
    assert sweep["estimate"][at] == pytest.approx(gap["estimate"], rel=1e-6)


# Levels without rows: as many groups as with intersections, whose programs then serve.
PADDED = {"levels": {"race": ["white", "black", "Asian", "other", "e"]}}


@pytest.fixture(scope="module")
def suppressed(frame):
    options = OPTIONS | PADDED | {"scores": ["risk"], "attributes": ["race"]}
    return brief(Options(**options, suppress_below=20), frame)


def test_an_audit_suppresses_small_groups_and_one_more_to_hide_them(suppressed, frame):
    """15 Asian patients died: by difference to the total, unless another is hidden."""
    assert frame.query("race == 'Asian'")["died"].sum() == 15
    hidden, empty = {"Asian", "black"}, {"other", "e"}
    status = {group["group"]: group["status"] for group in suppressed["cohort"]}
    expected = dict.fromkeys(hidden, "suppressed") | dict.fromkeys(empty, "empty")
    assert status == expected | {"white": "ok"}
    where = {"attribute", "group", "model", "metric", "status"}
    for entry in suppressed["cohort"] + suppressed["groups"]:
        shown = {key for key, value in entry.items() if value is not None} - where
        if entry["group"] in hidden:
            assert (entry["status"], shown) == ("suppressed", set())
        elif entry["group"] == "white":
            assert entry["status"] == "ok"
            assert "rows" in shown
            assert "metric" not in entry or "estimate" in shown
    assert {c["group"] for c in suppressed["curves"]["calibration"]} == {"white"}
    assert suppressed["curves"]["roc"] == suppressed["curves"]["decision"] == []
    assert {d["attributes"]["race"] for d in suppressed["discovery"]} == {"white"}
    for gap in suppressed["gaps"]:
        assert {*gap["withheld"]} == hidden
        assert gap["status"] == "suppressed"
        assert gap["estimate"] is gap["lower"] is gap["p"] is None
    assert suppressed["data"]["missing"] == {"died": 0, "risk": 0, "race": None}


def test_suppression_changes_no_number_that_it_shows(suppressed, document):
    where = {"model": "risk", "attribute": "race", "group": "white"}
    for entry in select(suppressed["groups"], group="white"):
        # A shrunken rate is shrunk towards the groups that are shown.
        same = only(document["groups"], metric=entry["metric"], **where)
        assert entry == same | {"shrunken": entry["shrunken"]}


@pytest.mark.slow
def test_same_table_same_document(document, frame):
    """With its crossings, search and comparison; other tests compare written bytes."""
    assert json.dumps(audited(frame.copy())) == json.dumps(document)


@pytest.mark.slow
def test_copies_of_rows_do_not_make_intervals_narrower(frame):
    """Each patient three times: the estimates stay, and so do the intervals."""
    third = frame[:800]
    # Others without the outcome, who take no part: as many rows in either table.
    others = frame[800:].assign(race="other", died=0)
    once = OPTIONS | PADDED | {"scores": ["risk"], "attributes": ["race"]}
    plain = brief(Options(**once), pd.concat([third, others]))
    copies = pd.concat([third.assign(pid=np.arange(len(third)))] * 3)
    options = OPTIONS | {"scores": ["risk"], "patient_id": "pid"}
    tripled = brief(Options(**options, intersections=False), copies)
    assert tripled["data"]["patients"] == len(third)
    # Nothing is crossed, in the search neither.
    assert tripled["discovery"]
    assert all(len(d["attributes"]) == 1 for d in tripled["discovery"])
    where = {"model": "risk", "attribute": "race", "group": "black"}
    for metric in ("true_positive_rate", "auroc", "brier_score", "calibration_slope"):
        once = only(plain["groups"], metric=metric, **where)
        thrice = only(tripled["groups"], metric=metric, **where)
        assert thrice["estimate"] == pytest.approx(once["estimate"], rel=1e-5)
        width = once["upper"] - once["lower"]
        assert thrice["upper"] - thrice["lower"] == pytest.approx(width, rel=0.06)
        assert thrice["method"].endswith("by patient")
    gap = only(
        tripled["gaps"],
        model="risk",
        attribute="race",
        metric="equal_opportunity_difference",
    )
    once = only(
        plain["gaps"],
        model="risk",
        attribute="race",
        metric="equal_opportunity_difference",
    )
    assert gap["lower"] == pytest.approx(once["lower"], abs=0.01)


def test_other_thresholds_are_every_twentieth():
    expected = np.arange(1, 20) / 20
    np.testing.assert_allclose(_pointwise.SENSITIVITY_THRESHOLDS, expected)


def test_bad_tables_are_refused(frame):
    with pytest.raises(AuditError, match="died"):
        audit(Options(**OPTIONS), frame.drop(columns="died"))


def test_what_is_too_much_to_search_is_left_out_and_named():
    def attribute(name, number):
        levels = tuple(map(str, range(number)))
        return Grouping(name, levels, np.zeros(1, np.int32))

    sizes = {"site": 50, "age": 20, "race": 10, "payer": 10, "sex": 2, "tongue": 6}
    attributes = [attribute(name, number) for name, number in sizes.items()]
    kept, others = searchable(attributes)
    assert [a.name for a in kept] == ["age", "race", "payer", "sex", "tongue"]
    assert others == ["site"]
    assert searchable(attributes[:3]) == (attributes[:3], [])
    many = [attribute(str(i), 4) for i in range(11)]
    assert len(searchable(many)[0]) == 10


@pytest.mark.slow
def test_an_audit_says_what_it_did_not_search(frame, monkeypatch):
    monkeypatch.setattr(_analysis, "MOST_CELLS", 3)
    options = OPTIONS | PADDED | {"scores": ["risk"], "intersections": False}
    document = brief(Options(**options), frame)
    assert {*document["discovery"][0]["attributes"]} == {"sex"}
    finding = only(document["quality"], code="attributes_not_searched")
    assert "leaves out race" in finding["message"]
    assert finding["severity"] == "warning"


@pytest.mark.slow
def test_support_and_intervals_count_patients():
    """Group b has 5 patients of 20 rows, and c 40: b's rows are enough, b is not."""
    rng = np.random.default_rng(0)
    sizes = {"a": (725, 2), "b": (5, 20), "c": (40, 8), "d": (30, 11)}
    # As many rows in all, and patients, as other tables have.
    more = {"a": 200}
    table = pd.concat(
        pd.DataFrame(
            {
                "site": group,
                "pid": [
                    f"{group}{i % patients}"
                    for i in range(patients * rows + more.get(group, 0))
                ],
                "died": rng.integers(0, 2, patients * rows + more.get(group, 0)),
            }
        )
        for group, (patients, rows) in sizes.items()
    )
    noise = rng.normal(size=len(table))
    table["risk"] = np.round(1 / (1 + np.exp(-(table["died"] + noise))), 6)
    separated = table["site"] == "c"
    table.loc[separated, "risk"] = 0.2 + 0.6 * table.loc[separated, "died"]
    document = brief(
        Options(
            outcome="died",
            scores="risk",
            attributes="site",
            patient_id="pid",
            thresholds=0.5,
            replicates=100,
        ),
        table,
    )
    found = {
        group: only(document["groups"], group=group, metric="auroc") for group in sizes
    }
    assert [found[g]["status"] for g in "abcd"] == ["ok", "insufficient", "ok", "ok"]
    gap = only(document["gaps"], metric="calibration_slope_difference")
    assert "b" in gap["left_out"]
    # Of 40 patients, and not of 320 rows.
    assert found["c"]["estimate"] == 1
    assert found["c"]["lower"] < 0.95


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_scores_in_single_precision_are_decided_as_in_the_csv_file(dtype):
    scores = np.arange(11) / 10
    table = pd.DataFrame({"died": 1, "risk": scores, "sex": ["F"] * 11})
    table.loc[0, "died"] = 0
    options = Options(outcome="died", scores="risk", attributes="sex", thresholds=0.7)
    data = read(options, table.astype({"risk": dtype}))
    np.testing.assert_array_equal(data.models[0].scores, scores)
    np.testing.assert_array_equal(data.models[0].decisions, scores >= 0.7)


def test_a_comparison_names_the_groups_it_says_nothing_of(document):
    by_race = only(document["comparison"], attribute="race")
    assert by_race["left_out"] == ["Asian"]
    assert by_race["withheld"] == []
    assert {g["group"] for g in by_race["groups"]} == {"black", "white"}
    [told] = [s for s in document["summary"] if s.startswith("By the change")]
    assert "too few to compare: Asian" in told
