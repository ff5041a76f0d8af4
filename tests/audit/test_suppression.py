"""Small groups that are suppressed over linked tables."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairjax.audit.measure import _entries, _models, _pointwise, _suppression
from fairjax.audit.measure._comparisons import Gap, Odds, Support
from fairjax.audit.measure._estimates import SHARES, Measured, Shares
from fairjax.audit.measure._families import families
from fairjax.audit.measure._small_cells import (
    Suppressed,
    count,
    decide,
    suppressed_groups,
)
from fairjax.audit.measure._suppression import (
    _close_bins,
    _close_thresholds,
    masked,
    suppress,
)
from fairjax.audit.reading.data import AuditData, Model
from fairjax.audit.schema import (
    Calibration,
    Cohort,
    Curves,
    Discovery,
    Document,
    Group,
    Overall,
    Roc,
    Sensitivity,
)
from fairjax.groups import Grouping
from fairjax.metrics import GapInterval, GapNoise
from tests.audit.example import empty


def attribute(name, codes, number):
    levels = tuple(f"{name}{i}" for i in range(number))
    return Grouping(name, levels, np.asarray(codes, np.int32))


def hidden_of(codes, labels, sizes, threshold):
    attributes = [
        attribute(name, column, number)
        for name, column, number in zip("ab", codes, sizes, strict=True)
    ]
    shown, _ = families(attributes, 2)
    return shown, of(shown, labels, threshold)


def data_of(labels, scores, decisions, site):
    model = Model("m", "m", np.asarray(scores), None, "given", np.asarray(decisions))
    return AuditData(
        source="DataFrame",
        sha256=None,
        rows_read=len(labels),
        rows_left_out={},
        missing={},
        outcome="died",
        positive="1",
        labels=np.asarray(labels, np.int8),
        models=(model,),
        attributes=(site,),
        patients=None,
        num_patients=None,
        findings=(),
    )


def of(shown, labels, threshold):
    cells = {f.name: count(f, labels, 2, None) for f in shown}
    return suppressed_groups(shown, cells, threshold)


def given_back(shown, labels, hidden, threshold):
    """Groups with a small count that depend linearly on what is shown."""
    code = np.zeros(len(labels), int)
    for family in shown:
        code = np.unique(code * 100 + family.codes, return_inverse=True)[1]
    first = np.unique(code, return_index=True)[1]
    known, secret = [np.ones(len(first))], []
    for family in shown:
        cells = count(family, labels, 2, None)
        for group, gone in enumerate(hidden[family.name]):
            inside = (family.codes[first] == group).astype(float)
            if not gone:
                known.append(inside)
            elif ((cells[group] > 0) & (cells[group] < threshold)).any():
                secret.append((family.name, family.levels[group], inside))
    rank = np.linalg.matrix_rank(np.array(known))
    return [
        (name, level)
        for name, level, inside in secret
        if np.linalg.matrix_rank(np.array([*known, inside])) == rank
    ]


def test_a_small_group_takes_its_own_crossings_and_one_more_with_it():
    # a1 has 3 positives; a0 and a2 are large. Each is split over b evenly.
    a = np.repeat([0, 1, 2], [400, 60, 200])
    b = np.arange(660) % 2
    labels = np.where(a == 1, np.arange(660) % 20 == 0, np.arange(660) % 2)
    shown, hidden = hidden_of([a, b], labels.astype(np.int8), (3, 2), 11)
    # a1 would be the total less a0 and a2, so the next smallest goes too.
    assert hidden["a"].tolist() == [False, True, True]
    crossed = shown[2]
    assert crossed.name == "a × b"
    gone = {
        level for level, h in zip(crossed.levels, hidden["a × b"], strict=True) if h
    }
    assert gone >= {"a1, b0", "a1, b1", "a2, b0", "a2, b1"}


def test_a_group_suppressed_for_another_reason_takes_one_more_with_it():
    a = np.repeat([0, 1, 2], [400, 60, 200])
    shown, _ = families([attribute("a", a, 3)], 1)
    cells = {"a": count(shown[0], (np.arange(660) % 2).astype(np.int8), 2, None)}
    besides = {"a": np.array([True, False, False])}
    hidden = suppressed_groups(shown, cells, 11, besides)["a"]
    # a0 would be the total less a1 and a2, so the next smallest goes too.
    assert hidden.tolist() == [True, True, False]


def test_nothing_small_nothing_suppressed():
    codes = np.arange(800) % 4
    labels = (np.arange(800) // 4 % 2).astype(np.int8)
    _, hidden = hidden_of([codes // 2, codes % 2], labels, (2, 2), 11)
    assert not any(mask.any() for mask in hidden.values())


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_no_count_can_be_had_by_subtraction(seed):
    rng = np.random.default_rng(seed)
    sizes, rows = (3, 4), 600
    a = rng.choice(3, rows, p=[0.7, 0.25, 0.05])
    b = rng.choice(4, rows, p=[0.5, 0.3, 0.18, 0.02])
    labels = (rng.random(rows) < 0.3).astype(np.int8)
    shown, hidden = hidden_of([a, b], labels, sizes, 11)
    counts = {
        f.name: np.bincount(f.codes * 2 + labels, minlength=2 * len(f.levels)).reshape(
            -1, 2
        )
        for f in shown
    }
    for family in shown:
        kept = counts[family.name][~hidden[family.name]]
        assert ((kept == 0) | (kept >= 11)).all()
    grid = hidden["a × b"].reshape(sizes)
    filled = counts["a × b"].sum(axis=1).reshape(sizes) > 0
    lines = [(hidden["a"], grid, filled), (hidden["b"], grid.T, filled.T)]
    for margin, cells, some in lines:
        for suppressed_margin, line, present in zip(margin, cells, some, strict=True):
            if suppressed_margin:
                assert line[present].all()
            else:
                assert (line & present).sum() != 1
    assert not given_back(shown, labels, hidden, 11)
    for name in ("a", "b"):
        some = counts[name].sum(axis=1) > 0
        assert (hidden[name] & some).sum() != 1


@pytest.mark.parametrize("threshold", [5, 30])
def test_three_attributes(threshold):
    rng = np.random.default_rng(0)
    columns = [rng.integers(0, 2, 900), rng.choice(3, 900, p=[0.8, 0.17, 0.03])]
    attributes = [
        attribute("x", columns[0], 2),
        attribute("y", columns[1], 3),
        attribute("z", rng.integers(0, 2, 900), 2),
    ]
    labels = (rng.random(900) < 0.4).astype(np.int8)
    shown, _ = families(attributes, 3)
    hidden = of(shown, labels, threshold)
    assert not given_back(shown, labels, hidden, threshold)
    for family in shown:
        counts = np.bincount(
            2 * family.codes + labels, minlength=2 * len(family.levels)
        )
        kept = counts.reshape(-1, 2)[~hidden[family.name]]
        assert ((kept == 0) | (kept >= threshold)).all()


def grid(counts):
    """A table of rows with the given counts in each cell of two attributes."""
    counts = np.asarray(counts)
    a, b = np.indices(counts.shape)
    codes = [np.repeat(place.ravel(), counts.ravel()) for place in (a, b)]
    # Every other row of a cell has the outcome.
    labels = np.concatenate([np.arange(n) % 2 for n in counts.ravel()])
    return codes, labels


def test_two_in_each_line_are_not_always_enough():
    """A cell between two blocks of suppressed ones is what goes from block to block."""
    counts = np.full((4, 4), 100)
    # Each pair of small ones has 24 rows together, which hide it, but for (1, 2).
    counts[:2, :2] = counts[2:, 2:] = 16
    counts[1, 2] = 16
    codes, labels = grid(counts)
    shown, hidden = hidden_of(codes, labels, (4, 4), 11)
    gone = hidden["a × b"].reshape(4, 4)
    assert gone[counts == 16].all()
    # Somewhere else a second one goes between the blocks, so that neither is known.
    assert (gone[:2, 2:].sum() + gone[2:, :2].sum()) > 1
    assert not given_back(shown, labels, hidden, 11)


def test_a_group_that_is_another_ones_whole_does_not_protect():
    """b1 is only in a0: suppressing (a0, b1) hides nothing while b1 is shown."""
    codes, labels = grid([[200, 200, 0], [200, 0, 12], [200, 0, 200]])
    shown, hidden = hidden_of(codes, labels, (3, 3), 11)
    assert hidden["a × b"].reshape(3, 3)[1, 2]
    assert not given_back(shown, labels, hidden, 11)


def test_patients_are_counted_where_they_are_known():
    family = families([attribute("a", [0, 0, 0, 1, 1], 2)], 1)[0][0]
    cells = np.array([0, 1, 1, 1, 1])
    assert count(family, cells, 2, None).tolist() == [[1, 2], [0, 2]]
    patients = np.array([0, 0, 0, 1, 2])
    assert count(family, cells, 2, patients).tolist() == [[1, 1], [0, 2]]


def test_an_attribute_may_vary_within_a_patient():
    site = attribute("site", [0, 1, 1, 0, 2], 3)
    data = data_of([0, 1, 0, 1, 0], [0.5] * 5, [True] * 5, site)
    assert data.varying(site).tolist() == []
    # Patient 1 was at two sites; patient 2 has no rows.
    patients = np.array([0, 1, 3, 1, 4], np.int32)
    data = dataclasses.replace(data, patients=patients, num_patients=5)
    assert data.varying(site).tolist() == [False, True, False, False, False]


def test_joined_groups_hide_too_few_positives():
    """Two suppressed groups of 3 positives each would show that there are 6."""
    a = np.repeat([0, 1, 2, 3], [100, 100, 100, 90])
    place = np.arange(390) - 100 * a
    labels = (place < np.array([50, 3, 3, 40])[a]).astype(np.int8)
    shown, _ = families([attribute("a", a, 4)], 1)
    assert of(shown, labels, 11)["a"].tolist() == [False, True, True, True]


def test_groups_that_share_patients_do_not_add_up():
    # 8 positive patients in b and the same 8 in c; a has enough, as has d.
    shown = families([attribute("site", np.arange(4).repeat(2), 4)], 1)[0]
    cells = {"site": np.array([[300, 40], [100, 8], [100, 8], [200, 30]])}
    apart = suppressed_groups(shown, cells, 11)["site"]
    assert apart.tolist() == [False, True, True, False]
    together = suppressed_groups(shown, cells, 11, shared={"site"})["site"]
    assert together.tolist() == [False, True, True, True]


@pytest.mark.parametrize("small", range(4))
def test_a_small_cell_of_any_kind_suppresses_decisions(small):
    """Of 100 patients of each label and decision in both groups, one group has 5."""
    cells = np.full((2, 4), 100)
    cells[0, small] = 5
    group, cell = (
        np.repeat(x, cells.ravel()) for x in np.indices((2, 4)).reshape(2, 8)
    )
    # Each row's score is its own, which tells nothing.
    scores = np.linspace(0, 1, len(cell))
    site = attribute("site", group, 2)
    data = data_of(cell // 2, scores, cell % 2 == 1, site)
    found = decide(families([site], 1)[0], data, 11)
    # The other group would tell the small cell by the difference to all rows.
    assert found.decisions[0]["site"].tolist() == [True, True]
    assert found.groups["site"].tolist() == [False, False]
    assert found.overall == (False,)


@pytest.mark.parametrize(
    ("events", "shown"),
    [
        ([20, 30, 40], [True, True, True]),
        ([5, 30, 40], [False, False, True]),  # The next smallest goes with it.
        (
            [0, 30, 40],
            [True, True, True],
        ),  # None has an outcome, which tells of nobody.
        ([5, 6, 40], [False, False, True]),
        # Together they still have too few.
        ([3, 4, 40], [False, False, False]),
    ],
)
def test_bins_of_few_events_are_emptied_and_others_to_hide_them(events, shown):
    rows = [100.0, 100.0, 100.0]
    observed = [count / 100 for count in events]
    curve = Calibration("m", "site", "a", observed, observed, observed, observed, rows)
    closed = _close_bins(curve, 11)
    assert [value is not None for value in closed.rows] == shown
    assert [value is not None for value in closed.observed] == shown


@pytest.mark.parametrize("suppressed_of", [None, 0, 1])
def test_models_are_compared_where_both_show_their_rankings(suppressed_of):
    site = families([attribute("site", [0, 1, 1], 2)], 1)[0]
    nothing = {"site": np.zeros(2, bool)}
    hidden = Suppressed(
        11,
        nothing,
        (nothing, nothing),
        (False, False),
        (nothing, {"site": np.array([False, True])}),
        (suppressed_of == 0, suppressed_of == 1),
        frozenset(),
    )
    opened = _models._open(1, site, hidden)
    codes = [family.codes.tolist() for family in opened]
    assert codes == ([[0, -1, -1]] if suppressed_of is None else [])


@pytest.mark.parametrize("flags", [False, True])
def test_a_score_of_two_values_is_hidden_where_few_have_one_of_them(flags):
    """Three patients with the outcome have the high score, all of them in one group."""
    cells = [(0, 0.2, 0), (0, 0.2, 1), (0, 0.8, 0), (1, 0.2, 0), (1, 0.2, 1)]
    rows = np.repeat([*cells, (1, 0.8, 0), (0, 0.8, 1)], [50] * 6 + [3], axis=0)
    group, scores, labels = rows.T
    site = attribute("site", group, 2)
    found = decide([site], data_of(labels, scores, flags & (scores > 0.5), site), 11)
    assert found.groups["site"].tolist() == [False, False]
    assert found.decisions[0]["site"].tolist() == [flags, flags]
    assert found.overall == (flags,)
    # The other group would tell the number by the difference to all rows.
    assert found.ranking[0]["site"].tolist() == [True, True]
    assert found.overall_ranking == (True,)


def made(kind, **wanted):
    """An entry of model m and the attribute site, whose other numbers are 1."""
    known = {"model": "m", "attribute": "site", "group": "site2", "status": "ok"}
    known |= {"metric": "true_positive_rate", "method": "Wilson", "denominator": 1.0}
    names = (field.name for field in dataclasses.fields(kind))
    return kind(**{name: known.get(name, 1) for name in names} | wanted)


def test_a_document_loses_what_is_hidden_and_nothing_else(monkeypatch):
    """Of three sites the first is hidden, and the decisions of the second."""
    monkeypatch.setattr(_pointwise, "SENSITIVITY_THRESHOLDS", np.array([0.5]))
    site = attribute("site", np.repeat([0, 1, 2], [4, 40, 40]), 3)
    # Ten rows of each label and decision in a large site, one in the small one.
    labels, scores = np.arange(84) % 2, np.arange(84) % 4 / 4
    data = data_of(labels, scores, scores >= 0.5, site)
    gone = {"site": np.array([True, False, False])}
    decided = {"site": np.array([True, True, False])}
    hidden = Suppressed(
        9, gone, (decided,), (False,), (gone,), (True,), frozenset({"site"})
    )
    rates, sites = ("true_positive_rate", "auroc"), site.levels
    cohort = [made(Cohort, group=name) for name in sites]
    groups = [made(Group, group=name, metric=rate) for name in sites for rate in rates]
    overall = [made(Overall, metric=rate) for rate in rates]
    at = {"threshold": [0.5]} | {key: [0.1] for key in ("estimate", "lower", "upper")}
    bins = {key: [0.5] * 3 for key in ("predicted", "observed", "lower", "upper")}
    document = Document.of(empty())
    document = dataclasses.replace(
        document,
        data=dataclasses.replace(document.data, missing={"died": 0, "site": 3}),
        cohort=cohort,
        overall=overall,
        groups=groups,
        curves=Curves(
            [made(Roc, fpr=[0.0, 1.0], tpr=[0.0, 1.0])],
            [made(Calibration, **bins, rows=[60, 40, 6])],
            [],
        ),
        sensitivity=[made(Sensitivity, **at)],
        discovery=[
            made(Discovery, group=name, attributes={"site": name}) for name in sites
        ],
    )

    def emptied(entry, **kept):
        names = {field.name for field in dataclasses.fields(entry)}
        names -= {"model", "attribute", "group", "metric"}
        return dataclasses.replace(entry, **dict.fromkeys(names) | kept)

    def closed(entry):
        return emptied(entry, status="suppressed")

    bins = {key: [0.5, None, None] for key in bins}
    assert suppress(document, hidden, [site], data) == dataclasses.replace(
        document,
        # The rows without a site are a group of it.
        data=dataclasses.replace(document.data, missing={"died": 0, "site": None}),
        # Patients of several sites would tell how many they are.
        cohort=[
            closed(cohort[0]),
            *(dataclasses.replace(entry, patients=None) for entry in cohort[1:]),
        ],
        overall=[overall[0], emptied(overall[1], method="Wilson")],
        groups=[*map(closed, groups[:3]), *groups[3:]],
        curves=Curves([], [made(Calibration, **bins, rows=[60, None, None])], []),
        discovery=document.discovery[2:],
    )
    # Nor is a group named that the decisions of all rows would tell.
    hidden = hidden._replace(overall=(True,), overall_ranking=(False,))
    shown = suppress(document, hidden, [site], data)
    assert shown.overall == [emptied(overall[0], method="Wilson"), overall[1]]
    assert shown.discovery == []


def test_thresholds_at_which_a_compared_group_has_a_small_cell_are_left_out(
    monkeypatch,
):
    thresholds = [0.5, 0.8, 0.95]
    monkeypatch.setattr(_pointwise, "SENSITIVITY_THRESHOLDS", np.array(thresholds))
    group = np.repeat([0, 1, 2], [40, 40, 4])
    labels = np.arange(84) % 2
    scores = np.where(labels == 1, 0.7, 0.2)
    scores[0] = 0.9  # Alone in its cell from .5 to .9.
    site = attribute("site", group, 3)

    groups = [
        made(Group, group="site0"),
        made(Group, group="site1"),
        # None of these compares the group of four.
        made(Group, status="suppressed"),
        made(Group, attribute="race"),
        made(Group, model="other"),
        made(Group, metric="auroc"),
    ]
    series = [0.1, 0.2, 0.3]
    sweep = Sensitivity("m", "site", "gap", thresholds, series, series, series)
    data = data_of(labels, scores, scores > 0.5, site)
    closed = _close_thresholds(sweep, groups, 11, site, data)
    assert closed.estimate == closed.lower == closed.upper == [None, None, 0.3]
    assert closed.threshold == sweep.threshold


def test_comparisons_are_without_what_is_hidden(monkeypatch):
    monkeypatch.setattr(_suppression, "shrunken", lambda shares: shares.trials)
    rates = np.full((len(SHARES), 4), 0.5)
    shares = Shares(rates, np.full_like(rates, 50), None, None)
    measured = Measured(*[None] * len(Measured._fields))._replace(shares=shares)
    support = Support(np.ones_like(rates, bool), np.ones(4, bool))
    odds = Odds(rates[:2], shares.trials[:2], np.ones((2, 4), bool), None, None)
    masks = {"selection_rate": [True, False, False], "auroc": [False, True, False]}
    measured, support, odds = masked(
        measured, support, odds, lambda metric: np.array(masks[metric])
    )
    shown = [False, True, True, True]
    assert (measured.shrunken > 0).tolist() == [shown] * len(SHARES)
    assert support.shares.tolist() == [shown] * len(SHARES)
    assert support.both.tolist() == [True, False, True, True]
    assert odds.valid.tolist() == [shown] * 2


def test_a_gap_names_whom_it_compares():
    """Of four groups one is hidden for one rate, one has a row, and one has none."""

    def gap(estimate, highest, lowest):
        numbers = np.array([estimate, 0.1, 0.3, 0.02, 2.0])
        ends = np.array([highest]), np.array([lowest])
        noise = GapNoise(*np.array([0.05, 0.01, 0.1]))
        return Gap(GapInterval(*numbers, *ends), noise)

    found = {
        "equalized_odds_difference": gap(0.2, 1, 1),
        "equal_opportunity_difference": gap(np.nan, 1, 1),
        "false_positive_rate_difference": gap(0.2, 2, 0),
    }
    counts = np.zeros((4, 2, 2))
    counts[:, 0, 0] = 100, 50, 1, 0
    measured = Measured(*[None] * len(Measured._fields))
    measured = measured._replace(counts=SimpleNamespace(counts=counts))
    support = Support(np.ones((len(SHARES), 4), bool), np.ones(4, bool))
    hides = {"true_positive_rate": [False, True, False, False]}
    entries = _entries.gaps(
        "m",
        attribute("site", np.arange(4), 4),
        measured,
        found,
        support,
        by_patient=False,
        hidden=lambda rate: np.array(hides.get(rate, [False] * 4)),
    )
    by_name = {entry.metric: entry for entry in entries}
    odds = by_name["equalized_odds_difference"]
    assert odds.compared == ["site0", "site2"]
    assert (odds.left_out, odds.withheld) == ([], ["site1"])
    # Of the rate that has a gap.
    assert (odds.highest, odds.lowest) == ("site2", "site0")
    assert by_name["false_positive_rate_difference"].withheld == []
