"""The paper's claims: verdicts on made-up evaluations whose answers are known."""

import numpy as np
import pytest

from experiments.intersectional.claims import (
    BALANCE,
    DISPARITY,
    DISTANCES,
    claims,
    most_balanced,
    multi_stage,
    not_the_best,
    weak_alone,
    with_summaries,
)
from experiments.intersectional.stages import PAPER
from experiments.intersectional.verdicts import (
    described,
    of_all,
    of_two_parts,
    one_of,
    shows,
)
from fairjax.evaluation import Comparison, Evaluation, contrast
from fairjax.evaluation.names import AVERAGE_ODDS, F1, OPPORTUNITY

TITLES = {name: c.title for name, c in PAPER.items()}
SPREAD = 0.004


def made(distance, f1=0.4, repeats=4):
    """An evaluation with these means; all metrics of a patient resample move as one."""
    values = dict.fromkeys(DISTANCES, distance) | {F1: f1}
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
    # Nine pairs of a pipeline and one of its own stages.
    assert len(found.tests) == 9
    assert "DIR + EGR less EGR" in found.tests
    assert "DIR + EGR less EO" not in found.tests
    if verdict == "holds":
        assert "Among 9 pairs" in found.more[0]
        assert "smaller in 9, significantly in 9" in found.more[0]


@pytest.mark.parametrize(
    ("distances", "verdict"),
    [
        # EO alone does it all: others that it is in are better than their other
        # stages, and no better than EO.
        ({"eo": 0.1, "dir_eo": 0.1, "egr_eo": 0.1, "dir_egr_eo": 0.1}, "holds in part"),
        # Every pair is lower but for one.
        (dict.fromkeys(MULTI, 0.1) | {"dir": 0.1, "dir_egr": 0.11}, "holds in part"),
        ({"dir_egr_eo": 0.3}, "does not hold"),
    ],
)
def test_several_stages_against_each_of_their_own(distances, verdict):
    found = multi_stage(all_of(distances), TITLES)
    assert found.verdict == verdict


def test_several_stages_on_average_are_a_remark():
    distances = dict.fromkeys(("eo", "dir_eo", "egr_eo", "dir_egr_eo"), 0.1)
    known = all_of(distances)
    found = multi_stage(known, TITLES)
    chosen = [known[name] for name in (*MULTI, *SINGLE)]
    told = contrast(chosen, [1 / 4] * 4 + [-1 / 3] * 3, f"{AVERAGE_ODDS}/mean")
    assert told.difference == pytest.approx(-0.042, abs=0.003)
    _, distance, price = found.more
    assert distance.startswith("The average of the 4 configurations")
    assert f"average odds difference {told.difference:+.4f}" in distance
    assert "Holm over these 4" in distance
    assert "Holm over these 2" in price


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
    ("eo", "egr", "egr_eo", "verdict"),
    [
        # It takes away a tenth alone, and three quarters after EGR.
        (0.18, 0.2, 0.05, "holds"),
        # Weak, and no more after EGR; as weak there.
        (0.18, 0.2, 0.18, "holds in part"),
        # Neither more nor less than half; more after EGR.
        (0.1, 0.25, 0.05, "holds in part"),
        # Weak, and weaker after EGR: one part is shown, the other refuted.
        (0.18, 0.1, 0.15, "not shown"),
        (0.1, 0.2, 0.1, "not shown"),
        # Three quarters alone, and nothing or less after EGR.
        (0.05, 0.05, 0.05, "does not hold"),
        (0.05, 0.3, 0.05, "not shown"),
        (0.1, 0.2, 0.2, "does not hold"),
    ],
)
def test_equalized_odds_alone(eo, egr, egr_eo, verdict):
    found = weak_alone(all_of({"eo": eo, "egr": egr, "egr_eo": egr_eo}), TITLES)
    assert found.verdict == verdict
    assert len(found.tests) == 3
    first, _, last = found.tests.values()
    assert first.difference == pytest.approx(eo - 0.1, abs=0.005)
    assert last.difference == pytest.approx(egr_eo - egr - eo + 0.2, abs=0.006)


def test_half_in_one_metric_is_no_weakness():
    known = all_of({"eo": 0.18})
    for kind in (known["eo"].repeats, known["eo"].bootstrap):
        kind[f"{OPPORTUNITY}/mean"] -= 0.12
    assert weak_alone(known, TITLES).verdict == "does not hold"


def test_a_wide_interval_shows_no_weakness():
    """Less than half is taken away by the estimate, but its interval reaches it."""
    known = all_of({"eo": 0.12})
    noise = np.random.default_rng(0).normal(size=200)
    for name in DISTANCES:
        known["eo"].bootstrap[name] += 0.1 * noise
    assert weak_alone(known, TITLES).verdict == "not shown"


def test_equalized_odds_alone_without_the_reduction():
    known = {name: made(0.2) for name in ("base", "eo")}
    found = weak_alone(known, TITLES)
    assert found.verdict == "holds in part"
    assert len(found.tests) == 2
    assert "was not run" in found.more[-1]


def test_noise_that_is_most_of_the_distance_is_told():
    known = all_of({})
    for name in ("base", "eo"):
        floors = {f"{OPPORTUNITY}/mean": 0.15, f"{AVERAGE_ODDS}/mean": 0.16}
        known[name].null.update(floors)
    assert "0.1600 under Base and 0.1600 under EO" in weak_alone(known, TITLES).more[0]


@pytest.mark.parametrize(
    ("full", "other", "verdict"),
    [(0.2, 0.1, "holds"), (0.05, 0.2, "does not hold"), (0.2, 0.2, "not shown")],
)
def test_the_full_pipeline(full, other, verdict):
    found = not_the_best(all_of({"dir_egr_eo": full, "egr": other}), TITLES)
    assert found.verdict == verdict


def test_one_repeat_tests_nothing():
    told = claims(all_of({"egr_eo": 0.01, "egr": 0.1}, repeats=1), TITLES, {})
    assert {claim.verdict for claim in told[:4]} == {"not tested"}


def test_what_was_not_run_is_not_judged():
    told = claims({"base": made(0.2), "egr": made(0.1)}, TITLES, {})
    assert [claim.verdict for claim in told] == ["not run"] * 5


def test_claims_under_the_other_thresholds():
    """Where thresholds alone make a model unfair, more stages are no fairer."""
    known = all_of(dict.fromkeys(MULTI, 0.1))
    known |= {f"{name}[common]": made(0.05) for name in ("base", "dir")}
    own, other = (claims(known, TITLES, {}, setting=s)[0] for s in ("", "common"))
    assert own.verdict == "holds"
    assert other.verdict == "holds in part"
    assert other.tests["DIR + EO less DIR"].difference == pytest.approx(0.05, abs=0.01)
    # EGR's decisions are drawn, with no threshold.
    pair = "EGR + EO less EGR"
    assert other.tests[pair].difference == own.tests[pair].difference


@pytest.mark.parametrize("absent", ["dir", "dir_egr"])
def test_the_best_of_eight_is_not_told_of_fewer(absent):
    known = all_of({"egr_eo": 0.05, "dir_egr_eo": 0.3})
    assert most_balanced(known, TITLES).verdict == "holds"
    assert not_the_best(known, TITLES).verdict == "holds"
    del known[absent]
    for claim in (most_balanced, not_the_best):
        found = claim(known, TITLES)
        assert (found.verdict, found.tests) == ("not run", {})
    pair = {name: known[name] for name in ("base", "egr_eo")}
    assert most_balanced(pair, TITLES).verdict == "not run"


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([(0.1, 0.01), (-0.2, 0.02)], "holds"),
        ([(-0.1, 0.01), (-0.2, 0.02)], "does not hold"),
        ([(-0.1, 0.01), (0.1, 0.2)], "not shown"),
        ([(0.1, float("nan"))], "not tested"),
    ],
)
def test_one_of_several_tests(differences, verdict):
    found = [Comparison(d, d - 0.1, d + 0.1, p, p) for d, p in differences]
    assert one_of(found) == verdict


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([(-0.1, 0.01), (-0.2, 0.02)], "holds"),
        ([(-0.1, 0.01), (0.1, 0.2)], "holds in part"),
        ([(-0.1, 0.01), (0.1, 0.01)], "holds in part"),
        ([(-0.1, 0.01), (0.1, float("nan"))], "holds in part"),
        ([(0.1, 0.01), (-0.1, 0.2)], "does not hold"),
        ([(0.1, 0.2)], "not shown"),
        ([(0.1, float("nan"))], "not tested"),
    ],
)
def test_several_tests_of_one_claim(differences, verdict):
    found = [Comparison(d, d - 0.1, d + 0.1, p, p) for d, p in differences]
    assert of_all(found, wanted=-1) == verdict


def test_every_pair_of_two_parts():
    told = {(a, b): of_two_parts(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)}
    assert {pair for pair, v in told.items() if v == "holds"} == {(1, 1)}
    assert {p for p, v in told.items() if v == "holds in part"} == {(0, 1), (1, 0)}
    assert {pair for pair, v in told.items() if v == "not shown"} == {
        *((0, 0), (1, -1), (-1, 1))
    }


def test_a_p_value_before_correction_is_not_told():
    raw = Comparison(-0.1, -0.2, -0.05, 0.001)
    assert described(raw).endswith("-0.0500], not tested")
    assert shows(raw) == 0
    corrected = Comparison(-0.1, -0.2, -0.05, 0.001, 0.004)
    assert described(corrected).endswith("-0.0500], p 0.004")
