"""The paper's claims: verdicts on made-up evaluations whose answers are known."""

import numpy as np
import pytest

from experiments.comparison import Comparison, Evaluation
from experiments.intersectional_claims import (
    BALANCE,
    DISPARITY,
    DISTANCES,
    F1,
    claims,
    hidden_subgroup,
    judged,
    most_balanced,
    multi_stage,
    not_the_best,
    weak_alone,
    with_summaries,
)
from experiments.intersectional_stages import PAPER
from experiments.level_measures import AVERAGE_ODDS

TITLES = {name: c.title for name, c in PAPER.items()}
GROUPS = ("ref", "one", "two")
SPREAD = 0.004


def made(distance, f1=0.4, odds=(0.0, 0.1, -0.1), repeats=4):
    """An evaluation with these means; all metrics of a patient resample move as one."""
    values = dict.fromkeys(DISTANCES, distance) | {F1: f1}
    values |= {
        f"{AVERAGE_ODDS}/subgroup={group}": value
        for group, value in zip(GROUPS, odds, strict=True)
    }
    rng = np.random.default_rng([round(1e4 * distance), round(1e4 * f1)])
    return with_summaries(
        Evaluation(
            {k: v + SPREAD / 4 * rng.normal(size=repeats) for k, v in values.items()},
            {k: v + SPREAD * rng.normal(size=200) for k, v in values.items()},
            {},
            {},
            {},
        )
    )


def all_of(distances, f1s=None, **options):
    f1s = f1s or {}
    return {
        name: made(distances.get(name, 0.2), f1s.get(name, 0.4), **options)
        for name in PAPER
    }


SINGLE, MULTI = ("dir", "egr", "eo"), ("dir_egr", "egr_eo", "dir_eo", "dir_egr_eo")


def test_summaries_are_of_three_distances():
    told = with_summaries(made(0.2))
    rows = [told.repeats[name] for name in DISTANCES[1:]]
    np.testing.assert_allclose(told.repeats[DISPARITY], np.mean(rows, axis=0))
    np.testing.assert_allclose(
        told.bootstrap[BALANCE], told.bootstrap[F1] - told.bootstrap[DISPARITY]
    )


@pytest.mark.parametrize(
    ("single", "multi", "verdict"),
    [(0.2, 0.1, "holds"), (0.1, 0.2, "does not hold"), (0.15, 0.15, "not shown")],
)
def test_several_stages(single, multi, verdict):
    distances = dict.fromkeys(SINGLE, single) | dict.fromkeys(MULTI, multi)
    found = multi_stage(all_of(distances), TITLES)
    assert found.verdict == verdict
    assert list(found.tests) == list(DISTANCES)
    if verdict == "holds":
        # Nine pairs of a pipeline and one of its own stages.
        assert "Of 9 pairs" in found.more[0]
        assert "smaller disparity in 9, beyond noise in 9" in found.more[0]


@pytest.mark.parametrize(
    ("distance", "f1", "verdict"),
    [
        (0.05, 0.4, "holds"),
        # As fair, but of no use.
        (0.05, 0.1, "does not hold"),
        (0.2, 0.4, "not shown"),
    ],
)
def test_most_balanced(distance, f1, verdict):
    found = most_balanced(all_of({"egr_eo": distance}, {"egr_eo": f1}), TITLES)
    assert found.verdict == verdict
    assert len(found.tests) == 7


def test_one_better_than_the_most_balanced():
    found = most_balanced(all_of({"egr_eo": 0.1, "dir": 0.05}), TITLES)
    assert found.verdict == "does not hold"
    assert found.tests["DIR"].difference == pytest.approx(-0.05, abs=0.01)
    assert found.more[0].startswith("By balance: DIR 0.3")


@pytest.mark.parametrize(
    ("alone", "verdict"), [(0.2, "holds"), (0.18, "holds"), (0.05, "does not hold")]
)
def test_equalized_odds_alone(alone, verdict):
    found = weak_alone(all_of({"eo": alone}), TITLES)
    assert found.verdict == verdict


def test_equalized_odds_does_more_after_the_reduction():
    found = weak_alone(all_of({"eo": 0.2, "egr": 0.2, "egr_eo": 0.05}), TITLES)
    assert "average odds: -0.1" in found.more[0]


@pytest.mark.parametrize(
    ("full", "other", "verdict"),
    [(0.2, 0.1, "holds"), (0.05, 0.2, "does not hold"), (0.2, 0.2, "not shown")],
)
def test_the_full_pipeline(full, other, verdict):
    found = not_the_best(all_of({"dir_egr_eo": full, "egr": other}), TITLES)
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("odds", "distance", "verdict"),
    [
        # One subgroup is further off, on either side, while the mean is better.
        ((0.0, 0.02, -0.3), 0.1, "holds"),
        ((0.0, 0.3, 0.0), 0.1, "holds"),
        ((0.0, 0.02, -0.02), 0.1, "does not hold"),
        # The mean is not better.
        ((0.0, 0.02, -0.3), 0.3, "not shown"),
    ],
)
def test_a_hidden_subgroup(odds, distance, verdict):
    known = {"base": made(0.2), "egr": made(distance, odds=odds)}
    found = hidden_subgroup(known, TITLES)
    if verdict == "does not hold":
        # The reference's distance is noise about 0 here; it is 0 in truth.
        for one in known.values():
            for kind in (one.repeats, one.bootstrap):
                kind[f"{AVERAGE_ODDS}/subgroup=ref"][:] = 0
        found = hidden_subgroup(known, TITLES)
    assert found.verdict == verdict
    if verdict == "holds":
        assert next(iter(found.tests)).startswith("EGR, ")


def test_one_repeat_tests_nothing():
    told = claims(all_of({"egr_eo": 0.01, "egr": 0.1}, repeats=1), TITLES)
    assert {claim.verdict for claim in told} == {"not tested"}


def test_what_was_not_run_is_not_judged():
    told = claims({"base": made(0.2), "egr": made(0.1)}, TITLES)
    verdicts = [claim.verdict for claim in told]
    assert verdicts[:4] == ["not run"] * 4
    assert verdicts[4] != "not run"


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([(-0.1, 0.01), (0.1, 0.2)], "holds"),
        ([(-0.1, 0.01), (0.1, 0.01)], "holds in part"),
        ([(0.1, 0.01), (-0.1, 0.2)], "does not hold"),
        ([(0.1, 0.2)], "not shown"),
        ([(0.1, float("nan"))], "not tested"),
    ],
)
def test_several_tests_of_one_claim(differences, verdict):
    found = [Comparison(d, d - 0.1, d + 0.1, p, p) for d, p in differences]
    assert judged(found, wanted=-1) == verdict
