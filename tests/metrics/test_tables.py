"""Tables on the host: values, names, statuses and messages.

The presets are held against fairlearn and AIF360 themselves in tests/oracle.
"""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from fairjax import metrics
from fairjax.metrics import GroupCounts, by_group, gap_table
from fairjax.metrics.definitions import RATES, SIGNED
from fairjax.metrics.gap_tables import GAPS, WHOLE
from fairjax.metrics.tables import _SCORE_METRICS

# The table of docs/conventions.md: TN, FP / FN, TP.
TABLE = np.array([[[10, 2], [2, 6]], [[9, 3], [3, 3]], [[5, 5], [4, 1]]])
NAMES = ["a", "b", "c"]
ODDS = ("equalized_odds_difference", "equalized_odds_difference_mean")


def rows_of(table, names=NAMES):
    """Labels, predictions and group names with these counts, shuffled."""
    cells = np.indices(table.shape).reshape(3, -1)
    groups, labels, predictions = np.repeat(cells, table.ravel(), axis=1)
    order = np.random.default_rng(0).permutation(len(labels))
    return labels[order], predictions[order], np.array(names)[groups[order]]


def value(table, metric, group=None):
    at = table["metric"] == metric
    if group is not None:
        at &= table["group"] == group
    return table.loc[at, "value"].item()


def test_every_rate_by_group():
    labels, predictions, groups = rows_of(TABLE)
    table = by_group(labels, predictions, {"site": groups}, metrics=RATES)
    assert table.index.tolist() == NAMES
    assert table.index.name == "site"
    assert table["rows"].tolist() == [20, 18, 15]
    assert table["positives"].tolist() == [8, 6, 5]
    assert table["negatives"].tolist() == [12, 12, 10]
    assert table["status"].tolist() == ["ok"] * 3
    counts = GroupCounts(jnp.array(TABLE))
    for name in RATES:
        expected = metrics.group_rate(counts, name)
        np.testing.assert_allclose(table[name], expected, rtol=1e-6)
        assert table[name].dtype == np.float64
    np.testing.assert_allclose(
        table["true_positive_rate"], [6 / 8, 3 / 6, 1 / 5], rtol=1e-15
    )


def test_a_declared_group_without_rows_keeps_its_line():
    labels, predictions, groups = rows_of(TABLE[:2], NAMES)
    declared = pd.Categorical(groups, categories=["z", "b", "a"])
    table = by_group(labels, predictions, {"site": declared}, min_positives=7)
    assert table.index.tolist() == ["z", "b", "a"]
    assert table["status"].tolist() == ["empty", "insufficient", "ok"]
    assert table.loc["z", ["selection_rate", "accuracy"]].isna().all()


def test_intersections_and_the_line_for_all():
    labels, predictions, groups = rows_of(TABLE)
    sex = np.where(np.arange(len(labels)) % 2 == 0, "f", "m")
    attributes = pd.DataFrame({"site": groups, "sex": sex}, index=range(7, 60))
    table = by_group(labels, predictions, attributes, overall=True)
    assert table.index.names == ["site", "sex"]
    assert len(table) == 7
    at = (groups == "b") & (sex == "m")
    np.testing.assert_allclose(
        table.loc[("b", "m"), "accuracy"], (labels == predictions)[at].mean()
    )
    last = table.loc[("overall", "overall")]
    assert last["rows"] == 53
    np.testing.assert_allclose(last["accuracy"], (labels == predictions).mean())
    assert table["rows"].iloc[:-1].sum() == 53


def test_weights_weigh_the_metrics_and_not_the_rows():
    labels, predictions, groups = rows_of(TABLE)
    weights = np.random.default_rng(1).integers(1, 4, len(labels))
    weighted = by_group(labels, predictions, groups, metrics=RATES, weights=weights)
    repeated = by_group(
        *(np.repeat(column, weights) for column in (labels, predictions, groups)),
        metrics=RATES,
    )
    pd.testing.assert_frame_equal(weighted[list(RATES)], repeated[list(RATES)])
    assert weighted["rows"].tolist() == [20, 18, 15]


@pytest.mark.slow
def test_scores_with_a_threshold():
    rng = np.random.default_rng(2)
    labels, groups = rng.integers(0, 2, 200), np.repeat(["x", "y"], 100)
    scores = np.round(rng.random(200), 1)
    table = by_group(
        labels, scores, groups, threshold=0.5, metrics=["selection_rate", "auroc"]
    )
    for name in ("x", "y"):
        at = groups == name
        assert table.loc[name, "selection_rate"] == (scores[at] >= 0.5).mean()
        expected = roc_auc_score(labels[at], scores[at])
        np.testing.assert_allclose(table.loc[name, "auroc"], expected, rtol=1e-12)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "Float32", "f8"])
def test_a_threshold_selects_what_predictions_at_selects(kind):
    """The float32 nearest to .7 is below .7 and the bfloat16 is far from it."""
    scores = [0.1, 0.7, 0.3]
    if kind == "Float32":
        column = pd.array(scores, dtype=kind)
        direct = metrics.predictions_at(np.array(scores, np.float32), 0.7)
    else:
        column = jnp.array(scores, kind) if kind != "f8" else np.array(scores)
        direct = metrics.predictions_at(np.asarray(column), 0.7)
    table = by_group([1, 1, 0], column, list("abc"), threshold=0.7)
    assert table["selection_rate"].tolist() == [0, 1, 0] == direct.tolist()


def test_the_documents_list_every_name():
    page = Path(__file__).parents[2] / "docs" / "conventions.md"
    listed = set(re.findall(r"`(\w+)`", page.read_text(encoding="utf-8")))
    taken = {name.removesuffix("_mean") for name in (*GAPS, *SIGNED, *WHOLE)}
    assert not taken - listed
    assert not {*RATES, *_SCORE_METRICS} - listed


@pytest.mark.slow
def test_metrics_of_scores():
    rng = np.random.default_rng(5)
    labels, groups = rng.integers(0, 2, 300), np.repeat(["x", "y"], 150)
    scores, weights = rng.random(300), rng.integers(1, 4, 300)
    names = {
        "auprc": metrics.group_auprc,
        "brier_score": metrics.group_brier,
        "expected_calibration_error": metrics.group_calibration_error,
        "calibration_intercept": metrics.logistic_recalibration,
        "calibration_slope": metrics.logistic_recalibration,
    }
    table = by_group(
        labels, scores, groups, threshold=0.5, metrics=list(names), weights=weights
    )
    columns, codes = (labels, scores), np.repeat([0, 1], 150)
    with jax.enable_x64(True):  # as tables are computed, and so of their programs
        found = {
            function: function(*columns, codes, num_groups=2, weights=weights)
            for function in set(names.values())
        }
    for name, function in names.items():
        value = found[function]
        expected = getattr(value, name.removeprefix("calibration_"), value)
        np.testing.assert_allclose(table[name], expected, rtol=2e-4)


def test_the_brier_score_needs_risks():
    rng = np.random.default_rng(5)
    labels, groups = rng.integers(0, 2, 300), np.repeat(["x", "y"], 150)
    scores, weights = rng.random(300), rng.integers(1, 4, 300)
    options = {"threshold": 0.5, "metrics": ["brier_score"]}
    table = by_group(labels, scores, groups, weights=weights, **options)
    brier = np.average((scores - labels)[:150] ** 2, weights=weights[:150])
    np.testing.assert_allclose(table.loc["x", "brier_score"], brier, rtol=1e-12)
    message = r"in \[0, 1\] for brier_score; got \d+ of 300 rows .*, the first at"
    with pytest.raises(ValueError, match=message):
        by_group(labels, 3 * scores, groups, **options)
    with pytest.raises(ValueError, match="'auprc', which needs scores and a threshold"):
        by_group(labels, labels, groups, metrics=["auprc"])


def test_columns_of_any_kind():
    table = by_group(
        pd.Series([True, False, True, False], index=[9, 8, 7, 6]),
        pd.array([1, 0, 0, 0], dtype="Int64"),
        pd.Series([1, 1, 2, None], name="ward"),
    )
    assert table.index.tolist() == ["1", "2", "missing"]
    assert table.index.name == "ward"
    assert table["rows"].tolist() == [2, 1, 1]
    assert table.loc["1", "accuracy"] == 1


def test_gaps_equal_those_of_the_arrays():
    labels, predictions, groups = rows_of(TABLE)
    counts = GroupCounts(jnp.array(TABLE))
    named = [
        "demographic_parity_difference",
        "demographic_parity_ratio",
        "equal_opportunity_difference",
        "equal_opportunity_ratio",
        "false_positive_rate_difference",
        "false_negative_rate_difference",
        "predictive_parity_difference",
        "negative_predictive_value_difference",
        "accuracy_difference",
        "error_rate_difference",
        "error_rate_ratio",
        "treatment_equality_difference",
        "equalized_odds_difference",
        "equalized_odds_ratio",
    ]
    table = gap_table(labels, predictions, {"site": groups}, gaps=[*named, ODDS[1]])
    assert table["status"].eq("ok").all()
    assert table["compared"].eq(3).all()
    for name in named:
        expected = getattr(metrics, name)(counts)
        np.testing.assert_allclose(value(table, name), expected, rtol=1e-5)
    mean = metrics.equalized_odds_difference(counts, "mean")
    np.testing.assert_allclose(value(table, ODDS[1]), mean, rtol=1e-6)


def test_gaps_name_the_groups_that_they_lie_between():
    labels, predictions, groups = rows_of(TABLE)
    table = gap_table(labels, predictions, {"site": groups}, gaps=[*ODDS]).set_index(
        "metric"
    )
    # TPR 3/4, 1/2, 1/5 decide, not FPR 1/6, 1/4, 1/2.
    assert table.loc[ODDS[0], ["group", "against"]].tolist() == ["a", "c"]
    assert table.loc[ODDS[1], ["group", "against"]].isna().all()
    flipped = gap_table(
        1 - labels, 1 - predictions, {"site": groups}, gaps=[ODDS[0]]
    ).set_index("metric")
    assert flipped.loc[ODDS[0], ["group", "against"]].tolist() == ["c", "a"]


def test_groups_left_out_are_named():
    table = TABLE.copy()
    table[2, 1] = 0
    labels, predictions, groups = rows_of(table)
    gaps = gap_table(labels, predictions, groups, gaps=[ODDS[0], "accuracy_difference"])
    # The false positive rate of c takes part.
    assert gaps.loc[0, "left_out"] == ("c (true positive rate)",)
    assert gaps.loc[0, "compared"] == 3
    assert gaps.loc[1, "left_out"] == ()
    gaps = gap_table(labels, predictions, groups, gaps=[ODDS[0]], min_support=7)
    assert gaps.loc[0, "status"] == "insufficient"
    odd = ("b (true positive rate)", "c (true positive rate)")
    assert gaps.loc[0, "left_out"] == odd
    assert np.isnan(gaps.loc[0, "value"])
    against_a = gap_table(labels, predictions, groups, gaps=[ODDS[0]], reference="a")
    assert against_a["left_out"].tolist() == [("c",)] * 2
    assert against_a["status"].tolist() == ["ok", "insufficient"]


def test_a_group_that_lacks_one_rate_may_have_the_widest_gap_of_the_other():
    table = np.array([[[4, 0], [2, 2]], [[4, 0], [2, 2]], [[0, 4], [0, 0]]])
    gaps = gap_table(*rows_of(table), gaps=[ODDS[0]]).loc[0]
    assert gaps[["group", "against"]].tolist() == ["c", "a"]
    assert gaps[["value", "compared", "status"]].tolist() == [1.0, 3, "ok"]
    assert gaps["left_out"] == ("c (true positive rate)",)
    # Neither rate: left out whole.
    table[2] = 0
    table[0, 0] = 0
    names = pd.Categorical(rows_of(table)[2], categories=NAMES)
    gaps = gap_table(*rows_of(table)[:2], {"site": names}, gaps=[ODDS[0]]).loc[0]
    assert gaps["left_out"] == ("a (false positive rate)", "c")
    assert gaps["compared"] == 2


def test_gaps_against_a_reference():
    labels, predictions, groups = rows_of(TABLE)
    names = ["disparate_impact", "average_odds_difference", ODDS[0]]
    table = gap_table(labels, predictions, groups, gaps=names, reference="b")
    assert table["against"].eq("b").all()
    assert table["group"].tolist() == ["a", "c"] * 3
    counts = GroupCounts(jnp.array(TABLE))
    for name in names:
        expected = getattr(metrics, name)(counts, reference=1)
        found = [value(table, name, group) for group in ("a", "c")]
        np.testing.assert_allclose(found, np.array(expected)[[0, 2]], atol=1e-6)


def test_statuses_against_a_reference():
    table = np.array([[[8, 0], [4, 0]], [[4, 4], [2, 2]], [[4, 0], [2, 0]]])
    labels, predictions, groups = rows_of(table)
    gaps = gap_table(
        labels, predictions, groups, gaps=["disparate_impact"], reference="a"
    )
    assert gaps["value"].tolist()[0] == np.inf
    assert gaps["status"].tolist() == ["infinite", "undefined"]


def test_several_attributes_and_their_crossing():
    labels, predictions, groups = rows_of(TABLE)
    sex = np.where(np.arange(len(labels)) % 2 == 0, "f", "m")
    attributes = {"site": groups, "sex": sex}
    table = gap_table(
        labels,
        predictions,
        attributes,
        gaps=["accuracy_difference"],
        reference={"site": "b", "sex": "m"},
        intersections=True,
    )
    assert table["attribute"].unique().tolist() == ["site", "sex", "site × sex"]
    crossed = table[table["attribute"] == "site × sex"].set_index("group")
    assert len(crossed) == 5
    assert crossed["against"].eq("b, m").all()
    right = labels == predictions
    rates = pd.Series(right).groupby([groups, sex]).mean()
    expected = rates["c"]["f"] - rates["b"]["m"]
    np.testing.assert_allclose(crossed.loc["c, f", "value"], expected, atol=1e-12)


@pytest.mark.slow
def test_metrics_of_all_groups_at_once():
    labels, predictions, groups = rows_of(TABLE)
    names = ["differential_fairness", "theil_index", "between_group_theil_index"]
    table = gap_table(labels, predictions, groups, gaps=names)
    counts = GroupCounts(jnp.array(TABLE))
    codes = np.searchsorted(NAMES, groups)
    split = metrics.entropy_split(labels, predictions, codes, 1, num_groups=3)
    expected = [metrics.differential_fairness(counts), split.total, split.between]
    np.testing.assert_allclose(table["value"], expected, rtol=1e-5)
    assert table["group"].isna().all()


def test_presets_put_their_zeros():
    table = TABLE.copy()
    table[2] = [[5, 0], [0, 0]]
    labels, predictions, groups = rows_of(table)
    names = ["true_positive_rate", "positive_predictive_value"]
    expected = {None: [np.nan, np.nan], "fairlearn": [0, 0], "aif360": [np.nan, 0]}
    for compat, values in expected.items():
        found = by_group(labels, predictions, groups, metrics=names, compat=compat)
        np.testing.assert_array_equal(found.loc["c", names].to_numpy(float), values)
    ours, theirs = (
        gap_table(labels, predictions, groups, gaps=[ODDS[0]], compat=compat).loc[0]
        for compat in (None, "fairlearn")
    )
    np.testing.assert_allclose(ours["value"], 0.25)
    np.testing.assert_allclose(theirs["value"], 0.75)
    assert (ours["status"], theirs["status"]) == ("ok", "filled")


def test_presets_on_the_table_worked_by_hand():
    labels, predictions, groups = rows_of(TABLE[:2])
    aif360 = gap_table(labels, predictions, groups, reference="a", compat="aif360")
    expected = {
        "statistical_parity_difference": -1 / 15,
        "disparate_impact": 5 / 6,
        "equal_opportunity_difference": -1 / 4,
        "average_odds_difference": -1 / 12,
        "average_absolute_odds_difference": 1 / 6,
    }
    for name, number in expected.items():
        np.testing.assert_allclose(value(aif360, name), number, atol=1e-12)
    ours = gap_table(
        labels,
        predictions,
        groups,
        gaps=[
            "predictive_parity_difference",
            "error_rate_difference",
            "generalized_entropy_index",
        ],
    )
    # 28 benefits of 1, five of 0 and five of 2.
    np.testing.assert_allclose(ours["value"], [1 / 4, 2 / 15, 5 / 38], atol=1e-12)
    fairlearn = gap_table(labels, predictions, groups, compat="fairlearn")
    expected = {
        "demographic_parity_difference": 1 / 15,
        "demographic_parity_ratio": 5 / 6,
        "equal_opportunity_difference": 1 / 4,
        "equalized_odds_difference": 1 / 4,
    }
    for name, number in expected.items():
        np.testing.assert_allclose(value(fairlearn, name), number, atol=1e-12)
    # A third group, C: peers.md's and the documents' example.
    labels, predictions, groups = rows_of(TABLE)
    pooled = gap_table(labels, predictions, groups, reference="a", compat="aif360")
    assert pooled["group"].dropna().unique().tolist() == ["b", "c", "all others"]
    found = value(pooled, "equal_opportunity_difference", "all others")
    np.testing.assert_allclose(found, 4 / 11 - 3 / 4, atol=1e-12)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (
            [[[7, 7], [7, 15]], [[6, 6], [5, 18]]],
            (0.074603174603, 0.891203703704, 0.100790513834, 0.100790513834),
        ),
        (
            [[[13, 10], [10, 34]], [[12, 10], [11, 39]]],
            (0.023839137645, None, None, 0.01976284585),
        ),
    ],
)
def test_values_of_fairlearns_own_tests(table, expected):
    """The counts of its 71 rows by its first attribute, plain and weighted."""
    groups, labels, predictions = np.indices((2, 2, 2)).reshape(3, -1)
    found = gap_table(
        labels,
        predictions,
        groups,
        weights=np.ravel(table),
        gaps=[
            "demographic_parity_difference",
            "demographic_parity_ratio",
            "equal_opportunity_difference",
            "equalized_odds_difference",
        ],
        compat="fairlearn",
    )
    for number, published in zip(found["value"], expected, strict=True):
        if published is not None:
            np.testing.assert_allclose(number, published, atol=1e-11)


ZEROS, ONES = np.zeros(3, int), np.ones(3, int)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((ONES, [1, 0], ZEROS), {}, "equal numbers of rows; got {'labels': 3"),
        ((ONES, ONES, [0, 1]), {}, "Column 'group' must have 3 rows, as labels; got 2"),
        (([1, 2, 0], ONES, ZEROS), {}, "labels .*; got 1 of 3 rows .* at position 1"),
        (([1, None, 0], ONES, ZEROS), {}, "labels must be 0 or 1; got 1 of 3 rows"),
        ((ONES, [0.2, 0.8, 1], ZEROS), {}, "scores need a threshold"),
        ((ONES, [0.2, np.nan, 1], ZEROS), {"threshold": 0.5}, "scores .* not NaN; got"),
        ((["yes", "no", "no"], ONES, ZEROS), {}, "labels must be numbers; .*'yes'"),
        ((ONES, ONES, ZEROS), {"weights": [1, -1, 1]}, "weights .* at least 0; got"),
        (([], [], []), {}, "at least one row; got none"),
    ],
)
@pytest.mark.parametrize("function", [by_group, gap_table])
def test_columns_that_cannot_be_used(function, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments, **options)


def test_options_that_cannot_be_used():
    given = ([1, 0, 1], [1, 0, 0], list("aab"))
    with pytest.raises(ValueError, match="needs scores and a threshold"):
        by_group(*given, metrics=["auroc"])
    with pytest.raises(ValueError, match="with compat='aif360'; got 'f1_score'"):
        by_group(*given, metrics=["f1_score"], compat="aif360")
    with pytest.raises(ValueError, match="Rename the category 'overall'"):
        by_group(*given[:2], ["overall", "b", "b"], overall=True)
    refused = [
        ({"gaps": ["recall_difference"]}, "; got 'recall_difference'"),
        ({"gaps": ["disparate_impact"]}, "give a reference"),
        ({"compat": "aif360"}, "give a reference"),
        ({"compat": "fairlearn", "reference": "a"}, "leave reference out"),
        ({"compat": "fairlearn", "min_support": 5}, "leave min_support out"),
        ({"reference": "z"}, "must be one of 'a', 'b'; got 'z'"),
        ({"reference": "a", "gaps": ["equalized_odds_ratio"]}, "leave reference out"),
        (
            {"compat": "fairlearn", "gaps": ["treatment_equality_difference"]},
            "fairlearn has no treatment_ratio",
        ),
    ]
    for options, message in refused:
        with pytest.raises(ValueError, match=message):
            gap_table(*given, **options)
    with pytest.raises(ValueError, match="if there are several attributes; got 'a'"):
        gap_table(*given[:2], {"x": list("aab"), "y": list("aab")}, reference="a")
    with pytest.raises(ValueError, match="must be given for 'y'; got {'x': 'a'}"):
        gap_table(
            *given[:2], {"x": list("aab"), "y": list("aab")}, reference={"x": "a"}
        )
