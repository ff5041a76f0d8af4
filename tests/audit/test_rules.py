"""Rules: their grammar, and how they are held against a document."""

import pytest

from fairjax.audit._errors import AuditError
from fairjax.audit.rules import gate_fails, judge, parse


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("auroc() < 0.7", (None, "auroc", (), (), "<", 0.7)),
        ("  auroc ( ) <= .7 ", (None, "auroc", (), (), "<=", 0.7)),
        (
            "equalized_odds_difference(race) > 1e-1",
            (None, "equalized_odds_difference", ("race",), (), ">", 0.1),
        ),
        (
            "auroc_difference(sex × race)>=-0.",
            (None, "auroc_difference", ("sex", "race"), (), ">=", 0.0),
        ),
        (
            "auroc_difference(sex*race group,site)>0",
            (None, "auroc_difference", ("sex", "race group", "site"), (), ">", 0.0),
        ),
        (
            "accuracy(race=Black, Caribbean) < .6",
            (None, "accuracy", ("race",), ("Black, Caribbean",), "<", 0.6),
        ),
        (
            "accuracy(sex=F, race=Black, Caribbean) < .6",
            (None, "accuracy", ("sex", "race"), ("F", "Black, Caribbean"), "<", 0.6),
        ),
        (
            "accuracy(age=65 and over * sex = F) < .6",
            (None, "accuracy", ("age", "sex"), ("65 and over", "F"), "<", 0.6),
        ),
        (
            "accuracy(race==cmd()) < 1",
            (None, "accuracy", ("race",), ("=cmd()",), "<", 1),
        ),
        (
            "my model: auroc(site=A: east (old)) < .7",
            ("my model", "auroc", ("site",), ("A: east (old)",), "<", 0.7),
        ),
        ("auroc(site=a:b) < .7", (None, "auroc", ("site",), ("a:b",), "<", 0.7)),
        ("v1:2: auroc() < .7", ("v1:2", "auroc", (), (), "<", 0.7)),
    ],
)
def test_grammar(text, parts):
    rule = parse(text)
    model, metric, attributes, levels, operator, bound = parts
    assert (rule.model, rule.metric, rule.attributes) == (model, metric, attributes)
    assert (rule.levels, rule.operator, rule.bound) == (levels, operator, bound)
    assert rule.text == text.strip()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot read the rule"),
        ("auroc", "cannot read the rule"),
        ("auroc() == 1", "cannot read the rule"),
        ("auroc() < high", "cannot read the rule"),
        ("auroc() < 0.7 or so", "cannot read the rule"),
        ("auroc() < nan", "cannot read the rule"),
        ("auroc(race < 0.7", "cannot read the rule"),
        ("auc() < 0.7", "must name an audited metric; did you mean 'auroc'?"),
        ("equalised_odds_difference(race) > 0", "'equalized_odds_difference'?"),
        ("equalized_odds_difference() > 0", "must name an attribute, and not a group"),
        ("auroc_difference(race=a) > 0", "must name an attribute, and not a group"),
        ("auroc(sex * ) < 1", "must name each attribute once"),
        ("auroc(sex * sex) < 1", "must name each attribute once"),
        ("auroc(sex=) < 1", "must give each attribute once, with a category"),
        ("auroc(=F) < 1", "must give each attribute once, with a category"),
        ("auroc(sex=F, sex=M) < 1", "must give each attribute once, with a category"),
    ],
)
def test_texts_that_are_no_rules(text, words):
    with pytest.raises(AuditError) as caught:
        parse(text)
    assert words in str(caught.value)


def value(metric, limits, **fields):
    estimate, lower, upper = limits
    return {
        "metric": metric,
        "model": "risk",
        "estimate": estimate,
        "lower": lower,
        "upper": upper,
        **fields,
    }


NOTHING = (None, None, None)


def document(*models, overall=(), groups=(), gaps=()):
    attributes = ["sex", "race", "sex × race"]
    return {
        "data": {
            "models": [{"name": name} for name in models or ("risk",)],
            "attributes": [
                {"name": name, "intersection": "×" in name} for name in attributes
            ],
        },
        "overall": list(overall),
        "groups": list(groups),
        "gaps": list(gaps),
    }


def gap(limits, attribute="race", status="ok", left_out=(), **fields):
    return value(
        "equalized_odds_difference",
        limits,
        attribute=attribute,
        status=status,
        left_out=list(left_out),
        **fields,
    )


def group(name, limits, attribute="race", status="ok", metric="true_positive_rate"):
    return value(metric, limits, attribute=attribute, group=name, status=status)


def verdict(text, found):
    (entry,) = judge(found, [parse(text)])
    assert set(entry) == {"rule", "estimate", "lower", "upper", "status", "reason"}
    return entry


@pytest.mark.parametrize(
    ("operator", "limits", "status", "reason"),
    [
        (">", (0.2, 0.11, 0.3), "failed", "lies above 0.1"),
        (">", (0.2, 0.1, 0.3), "passed", "does not show a value above 0.1"),
        (">=", (0.2, 0.1, 0.3), "failed", "lies at or above 0.1"),
        (">", (0.2, 0.05, 0.3), "passed", "nor does it rule one out"),
        (">", (0.05, 0.0, 0.09), "passed", "rules out a value above 0.1"),
        (">", (0.05, 0.0, 0.1), "passed", "rules out a value above 0.1"),
        ("<", (0.05, 0.0, 0.09), "failed", "lies below 0.1"),
        ("<", (0.05, 0.0, 0.1), "passed", "does not show a value below 0.1"),
        ("<=", (0.05, 0.0, 0.1), "failed", "lies at or below 0.1"),
        ("<", (0.2, 0.11, 0.3), "passed", "rules out a value below 0.1"),
    ],
)
def test_the_interval_decides(operator, limits, status, reason):
    entry = verdict(
        f"equalized_odds_difference(race) {operator} 0.1", document(gaps=[gap(limits)])
    )
    assert entry["status"] == status
    assert reason in entry["reason"]
    assert (entry["estimate"], entry["lower"], entry["upper"]) == limits


RULE = "equalized_odds_difference(race) > 0.1"


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (gap(NOTHING, status="insufficient"), "too few patients to estimate"),
        (gap(NOTHING), "too few patients to estimate"),
        (gap(NOTHING, left_out=["a"]), "too few patients to estimate in 'a'"),
        (gap(NOTHING, compared=["a"]), "fewer than two groups have rows"),
        (gap(NOTHING, status="suppressed"), "suppressed"),
        (gap(NOTHING, status="suppressed", withheld=["a"]), "suppressed: 'a'"),
        (
            gap(NOTHING, status="suppressed", withheld=["a"], left_out=["b"]),
            "suppressed: 'a'; too few patients: 'b'",
        ),
        (gap((0.3, None, None)), "has no interval"),
        (gap((0.3, 0.2, 0.4), attribute="sex"), "the audit has no such value"),
    ],
)
def test_what_is_not_known_is_undecided(found, reason):
    entry = verdict(RULE, document(gaps=[found]))
    assert entry["status"] == "undecided"
    assert reason in entry["reason"]


def test_groups_that_were_not_compared_are_named():
    others = {"left_out": ["asian"], "withheld": ["white"]}
    for interval, status in (
        ((0.05, 0.0, 0.09), "undecided"),
        ((0.1, 0.0, 0.2), "undecided"),
        ((0.2, 0.11, 0.3), "failed"),
    ):
        entry = verdict(RULE, document(gaps=[gap(interval, **others)]))
        assert (entry["status"], entry["estimate"]) == (status, interval[0])
        assert "rule" not in entry["reason"]
        assert entry["reason"].endswith(
            "not compared, suppressed: 'white'; not compared, too few patients: 'asian'"
        )
    few = gap((0.05, 0.0, 0.09), left_out=["asian"])
    assert "suppressed" not in verdict(RULE, document(gaps=[few]))["reason"]
    hidden = gap((0.05, 0.0, 0.09), withheld=["asian"])
    assert "too few" not in verdict(RULE, document(gaps=[hidden]))["reason"]


def test_a_value_over_all_rows_may_be_suppressed():
    found = document(overall=[value("accuracy", NOTHING)])
    assert "suppressed" not in verdict("accuracy() < 0.5", found)["reason"]
    found["settings"] = {"suppress_below": 11}
    entry = verdict("accuracy() < 0.5", found)
    assert (entry["status"], entry["reason"]) == (
        "undecided",
        "suppressed, or too few patients to estimate",
    )


def test_an_intersection_in_any_order():
    found = document(
        gaps=[gap((0.3, 0.2, 0.4), "sex × race"), gap((0.0, 0.0, 0.01), "race")],
        groups=[
            group("F, a", (0.2, 0.1, 0.3), "sex × race"),
            group("M, a", (0.9, 0.8, 1.0), "sex × race"),
            group("a", (0.9, 0.8, 1.0)),
        ],
    )
    for where in ("sex * race", "race, sex", "race × sex"):
        text = f"equalized_odds_difference({where}) > 0.1"
        assert verdict(text, found)["status"] == "failed"
    for where in ("sex=F, race=a", "race=a, sex=F"):
        entry = verdict(f"true_positive_rate({where}) < 0.5", found)
        assert (entry["status"], entry["estimate"]) == ("failed", 0.2)


def test_one_group_and_all_rows():
    found = document(
        overall=[value("auroc", (0.75, 0.72, 0.78))],
        groups=[group("a", (0.4, 0.3, 0.5)), group("b", (0.9, 0.8, 0.95))],
    )
    assert verdict("auroc() < 0.7", found)["status"] == "passed"
    assert verdict("auroc() < 0.8", found)["status"] == "failed"
    assert verdict("true_positive_rate(race=a) < 0.6", found)["status"] == "failed"
    assert verdict("true_positive_rate(race=b) < 0.6", found)["status"] == "passed"
    assert verdict("true_positive_rate(race=b) > 0.6", found)["status"] == "failed"


def test_each_group_of_an_attribute():
    fine, bad = group("a", (0.9, 0.8, 0.95)), group("b", (0.4, 0.3, 0.5))
    worse = group("c", (0.3, 0.2, 0.4))
    small = group("d", NOTHING, status="insufficient")
    text = "true_positive_rate(race) < 0.6"
    entry = verdict(text, document(groups=[fine, bad, worse, small]))
    assert (entry["status"], entry["estimate"]) == ("failed", 0.3)
    assert entry["reason"].startswith("c: the interval")
    entry = verdict(text, document(groups=[fine, small]))
    assert (entry["status"], entry["estimate"]) == ("undecided", None)
    assert entry["reason"] == "d: too few patients to estimate"
    assert verdict(text, document(groups=[fine]))["status"] == "passed"
    # Nobody is in a group that was only declared, unless it is asked for.
    empty = group("e", NOTHING, status="empty")
    assert verdict(text, document(groups=[fine, empty]))["status"] == "passed"
    assert verdict(text, document(groups=[empty]))["status"] == "undecided"
    named = "true_positive_rate(race=e) < 0.6"
    assert verdict(named, document(groups=[fine, empty]))["status"] == "undecided"


def test_several_models():
    found = document("old", "new", gaps=[gap((0.3, 0.2, 0.4)), gap((0.0, 0.0, 0.05))])
    found["gaps"][0]["model"], found["gaps"][1]["model"] = "old", "new"
    entries = judge(found, [parse(RULE), parse(f"new: {RULE}")])
    assert [entry["rule"] for entry in entries] == [
        f"old: {RULE}",
        f"new: {RULE}",
        f"new: {RULE}",
    ]
    assert [entry["status"] for entry in entries] == ["failed", "passed", "passed"]


def test_no_rules_make_no_gate():
    assert judge(document(), []) == []
    assert not gate_fails([])


@pytest.mark.parametrize(
    ("statuses", "shut", "shut_if_allowed"),
    [
        (["passed"], False, False),
        (["passed", "undecided"], True, False),
        (["undecided", "failed"], True, True),
    ],
)
def test_the_gate(statuses, shut, shut_if_allowed):
    gate = [{"status": status} for status in statuses]
    assert gate_fails(gate) is shut
    assert gate_fails(gate, allow_undecided=True) is shut_if_allowed
