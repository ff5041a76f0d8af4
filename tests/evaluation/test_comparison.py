"""Intervals and paired tests, by hand."""

import math

import numpy as np
import pytest
from scipy.stats import t

from fairjax.evaluation import (
    Comparison,
    Evaluation,
    compare,
    compare_all,
    compare_fronts,
    front_area,
    holm,
)
from fairjax.evaluation.names import GAP


def evaluation(auroc, gap, repeats=2):
    """An evaluation whose resamples are the given values, and repeats their mean."""
    bootstrap = {"auroc": np.array(auroc, float), f"{GAP}/mean": np.array(gap, float)}
    means = {k: np.full(repeats, v.mean()) for k, v in bootstrap.items()}
    return Evaluation(means, bootstrap, {}, {}, {})


def test_intervals_add_the_variance_of_patients_and_of_repeats():
    one = Evaluation(
        {"auroc": np.array([0.70, 0.74, 0.72])},
        {"auroc": np.array([0.70, 0.71, 0.75, 0.72])},
        {},
        {},
        {},
    )
    patients, repeats = np.var([0.70, 0.71, 0.75, 0.72], ddof=1), 0.0004 / 3
    variance = patients + repeats
    degrees = variance**2 / (patients**2 / 3 + repeats**2 / 2)
    reach = t.ppf(0.975, degrees) * math.sqrt(variance)
    assert one.interval("auroc") == pytest.approx(
        (0.72 - reach, 0.72 + reach), abs=1e-6
    )


def test_intervals_stay_within_the_metric_s_range():
    low = evaluation([0.99, 0.9], [0.0, 0.3])
    assert low.interval(f"{GAP}/mean")[0] == 0
    assert low.interval("auroc")[1] == 1


def test_one_repeat_has_the_variance_of_patients_alone_and_no_test():
    one = evaluation([0.69, 0.7, 0.71], [0, 0, 0], repeats=1)
    reach = t.ppf(0.975, 2) * 0.01
    assert one.interval("auroc") == pytest.approx((0.7 - reach, 0.7 + reach), abs=1e-5)
    other = evaluation([0.6, 0.61, 0.62], [0, 0, 0], repeats=1)
    assert math.isnan(compare(one, other, "auroc").p)


def test_comparisons_are_paired():
    method = evaluation([0.71, 0.72, 0.76], [0, 0, 0])
    erm = evaluation([0.70, 0.70, 0.73], [0, 0, 0])
    found = compare(method, erm, "auroc")
    error = np.std([0.01, 0.02, 0.03], ddof=1)
    assert found.difference == pytest.approx(0.02, abs=1e-6)
    assert found.high - found.low == pytest.approx(
        2 * t.ppf(0.975, 2) * error, abs=1e-5
    )
    assert found.p == pytest.approx(2 * t.sf(0.02 / error, 2), rel=1e-4)
    assert math.isnan(found.p_holm)


def test_a_method_that_equals_the_baseline_is_no_finding():
    one = evaluation([0.7, 0.7], [0.1, 0.1])
    found = compare(one, one, "auroc")
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_holm_by_hand():
    given = {
        name: Comparison(0.1, 0.0, 1.0, p)
        for name, p in {"a": 0.01, "b": 0.04, "c": 0.03, "d": math.nan}.items()
    }
    found = holm(given)
    assert [c.p for c in found.values()][:3] == [0.01, 0.04, 0.03]
    adjusted = [found[name].p_holm for name in "abc"]
    assert adjusted == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(found["d"].p_holm)
    assert found["a"].difference == 0.1
    assert holm({}) == {}


def test_every_method_but_the_baseline_is_compared():
    erm = evaluation([0.70, 0.71, 0.72], [0, 0, 0])
    better = evaluation([0.72, 0.73, 0.745], [0, 0, 0])
    same = evaluation([0.70, 0.712, 0.72], [0, 0, 0])
    found = compare_all({"better": better, "erm": erm, "same": same}, "erm", "auroc")
    assert set(found) == {"better", "same"}
    assert found["better"].p_holm == pytest.approx(2 * found["better"].p, rel=1e-5)


def test_front_areas_by_hand():
    erm = evaluation([0.80, 0.80], [0.10, 0.10])
    fair = evaluation([0.78, 0.78], [0.04, 0.05])
    dominated = evaluation([0.77, 0.77], [0.09, 0.09])
    corner = (0.75, 0.12)
    repeats, samples = front_area([erm, fair, dominated], corner)
    # .05 × .02 for ERM, and what the other adds above it: .03 × (.10 − gap).
    np.testing.assert_allclose(samples, [0.0028, 0.0025], rtol=1e-4)
    np.testing.assert_allclose(repeats, [0.00265, 0.00265], rtol=1e-4)
    found = compare_fronts([erm, fair], [erm], corner)
    assert found.difference == pytest.approx(0.00165, rel=1e-4)
