"""The three stages together, and the mixture under scikit-learn's own checks."""

import numpy as np
import optax
import pandas as pd
import pytest
import sklearn
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import estimator_checks_generator

from fairjax.mitigation import (
    DisparateImpactRemover,
    EqualizedOdds,
    ExponentiatedGradient,
    FlaxClassifier,
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:These rules need each patient's group")
@pytest.mark.parametrize(
    ("learner", "iterations"),
    [
        (LogisticRegression(), 3),
        pytest.param(FlaxClassifier(), 50, marks=pytest.mark.slow),
    ],
    ids=["sklearn", "flax"],
)
def test_a_pipeline_of_three_stages_is_the_stages_one_by_one(learner, iterations):
    rng = np.random.default_rng(0)
    people = pd.DataFrame({"sex": rng.choice(["f", "m"], 400)})
    x = pd.DataFrame(rng.normal(size=(400, 2)), columns=["a", "b"])
    x["a"] += people["sex"] == "m"
    y = (x.sum(axis=1) + rng.normal(size=400) > 1).astype(int)
    train, valid = slice(0, 200), slice(200, 400)
    egr = ExponentiatedGradient(
        learner, random_state=0, difference_bound=0.05, max_iterations=iterations
    )

    remover = DisparateImpactRemover(0.5).fit(
        x[train], sensitive_features=people[train]
    )
    first, second = (
        remover.transform(x[part], sensitive_features=people[part])
        for part in (train, valid)
    )
    fair = sklearn.clone(egr).fit(first, y[train], sensitive_features=people[train])
    odds = EqualizedOdds(FrozenEstimator(fair), tolerance=0.02)
    odds.fit(second, y[valid], sensitive_features=people[valid])
    expected = odds.predict_proba(second, sensitive_features=people[valid])

    with sklearn.config_context(enable_metadata_routing=True):
        before = (
            DisparateImpactRemover(0.5)
            .set_fit_request(sensitive_features=True)
            .set_transform_request(sensitive_features=True)
        )
        two = make_pipeline(before, egr.set_fit_request(sensitive_features=True))
        two.fit(x[train], y[train], sensitive_features=people[train])
        three = EqualizedOdds(FrozenEstimator(two), tolerance=0.02)
        three.fit(x[valid], y[valid], sensitive_features=people[valid])
        found = three.predict_proba(x[valid], sensitive_features=people[valid])
    np.testing.assert_array_equal(found, expected)
    rates = three.report()
    assert np.ptp(rates["true_positive_rate"]) <= 0.02 + 1e-9
    assert np.ptp(rates["false_positive_rate"]) <= 0.02 + 1e-9


class OfEveryOther(ExponentiatedGradient):
    """With the groups that scikit-learn's checks do not give: every other pair of rows.

    The bound is as loose as can be: the groups of a check mean nothing.
    """

    def fit(self, X, y, sample_weight=None):
        rows = 0 if y is None else len(np.asarray(y))
        groups = np.arange(rows) // 2 % 2
        return super().fit(X, y, sensitive_features=groups, sample_weight=sample_weight)


ADAM = optax.adam(0.1)


def begin(params):
    return ADAM.init(params)


def advance(gradient, state, params=None):
    return ADAM.update(gradient, state, params)


# Answering to the last digit takes more steps than a mixture needs; of Adam's, which
# compile sooner than those of L-BFGS, in the many shapes of the checks. They are
# functions of this file, since a check pickles the learner.
FLAX = FlaxClassifier(optimizer=optax.GradientTransformation(begin, advance), steps=200)
LOOSE = {"difference_bound": 1.0, "max_iterations": 2, "random_state": 0}


@pytest.mark.slow
@pytest.mark.usefixtures("untyped")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("estimator", "check"),
    list(estimator_checks_generator(OfEveryOther(FLAX, **LOOSE))),
    ids=lambda value: getattr(getattr(value, "func", None), "__name__", "it"),
)
def test_scikit_learns_checks_of_a_flax_learner(estimator, check):
    check(estimator)


# Of settings, outcomes and dtypes, which are seen to before there is a learner; and of
# weights, which fairlearn's reduction refuses, as a test of bad patients says.
OF_ANY_LEARNER = (
    "check_classifiers_classes",
    "check_classifiers_one_label",
    "check_classifiers_regression_target",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_dont_overwrite_parameters",
    "check_estimators_dtypes",
    "check_estimators_fit_returns_self",
    "check_estimators_overwrite_params",
    "check_fit_score_takes_y",
    "check_positive_only_tag_during_fit",
    "check_supervised_y",
    "check_all_zero_sample_weights_error",
    "check_sample_weight",
)


@pytest.mark.slow
@pytest.mark.usefixtures("untyped")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        (estimator, check)
        for estimator, check in estimator_checks_generator(
            OfEveryOther(LogisticRegression(), **LOOSE)
        )
        if not check.func.__name__.startswith(OF_ANY_LEARNER)
    ],
    ids=lambda value: getattr(getattr(value, "func", None), "__name__", "it"),
)
def test_scikit_learns_checks_of_its_own_learner(estimator, check):
    check(estimator)
