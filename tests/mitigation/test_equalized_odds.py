"""The estimator of equal rates as scikit-learn's users have it."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.fixes import parse_version

from fairjax import metrics
from fairjax.mitigation import (
    DisparateImpactRemover,
    EqualizedOdds,
    equal_rate_rules,
    equalized_odds,
)

# Said at the first fit without shared=True; one test asks for it.
pytestmark = pytest.mark.filterwarnings("ignore:These rules need each patient's group")


def cohort(rows=400, seed=0):
    """A score that tells more of one group's outcome than of the others'."""
    rng = np.random.default_rng(seed)
    who = pd.DataFrame(
        {"sex": rng.choice(["f", "m"], rows), "old": rng.integers(0, 2, rows)}
    )
    labels = rng.random(rows) < 0.35 + 0.2 * (who.sex == "m")
    signal = labels * (0.5 + 1.5 * who.old) + rng.normal(size=rows)
    x = pd.DataFrame({"score": signal, "noise": rng.normal(size=rows)})
    return x, np.where(labels, "died", "alive"), who


X, Y, WHO = cohort()
# In rising order the second class is "died".
POSITIVE = Y == "died"


def rates_by_hand(chance, labels=POSITIVE, who=WHO, weights=None):
    """Expected false and true positive rates, a row a group in the order of names."""
    weights = np.ones(len(labels)) if weights is None else weights
    found = []
    for _, rows in sorted(who.groupby(["sex", "old"]).indices.items()):
        found.append(
            [
                np.average(chance[rows], weights=weights[rows] * (labels[rows] == y))
                for y in (False, True)
            ]
        )
    return np.array(found)


@pytest.mark.parametrize("tolerance", [0.0, 0.1])
@pytest.mark.parametrize("shared", [False, True])
def test_expected_rates_are_equal_to_tolerance(tolerance, shared):
    fair = EqualizedOdds(LogisticRegression(), tolerance=tolerance, shared=shared)
    fair.fit(X, Y, sensitive_features=WHO)
    chance = fair.predict_proba(X, sensitive_features=WHO)
    assert chance.shape == (400, 2)
    np.testing.assert_allclose(chance.sum(axis=1), 1)
    found = rates_by_hand(chance[:, 1])
    assert (np.ptp(found, axis=0) <= tolerance + 1e-8).all()
    report = fair.report()
    assert list(report.index) == list(fair.group_names_)
    assert fair.group_names_[0] == "sex=f, old=0"
    np.testing.assert_allclose(report.false_positive_rate, found[:, 0], atol=1e-6)
    np.testing.assert_allclose(report.true_positive_rate, found[:, 1], atol=1e-6)
    error = np.mean(np.where(POSITIVE, chance[:, 0], chance[:, 1]))
    assert fair.cost_ == pytest.approx(error)
    assert fair.score(X, Y, sensitive_features=WHO) == pytest.approx(1 - error)


def test_the_rules_are_those_of_the_classifiers_scores():
    fair = EqualizedOdds(LogisticRegression(), objective="balanced_error")
    fair.fit(X, Y, sensitive_features=WHO)
    model = LogisticRegression().fit(X, Y)
    groups = (WHO.sex == "m") * 2 + WHO.old
    expected = equal_rate_rules(
        POSITIVE.astype(int),
        model.predict_proba(X)[:, 1],
        groups.to_numpy(),
        num_groups=4,
        objective="balanced_error",
    )
    assert fair.cost_ == pytest.approx(expected.cost)
    np.testing.assert_allclose(fair.rules_.thresholds, expected.rules.thresholds)


def test_it_warns_that_groups_are_needed_and_shared_rules_need_none():
    equalized_odds._warn_that_groups_are_needed.cache_clear()
    with pytest.warns(UserWarning, match="need each patient's group to decide"):
        own = EqualizedOdds(LogisticRegression()).fit(X, Y, sensitive_features=WHO)
    with warnings.catch_warnings():
        # Said once, not for every fold of a search.
        warnings.simplefilter("error")
        clone(own).fit(X, Y, sensitive_features=WHO)
    with pytest.raises(
        ValueError, match="sensitive_features must be given, .*; got None"
    ):
        own.predict(X)
    shared = EqualizedOdds(LogisticRegression(), shared=True, tolerance=0.2)
    shared.fit(X, Y, sensitive_features=WHO)
    np.testing.assert_array_equal(
        shared.predict_proba(X), shared.predict_proba(X, sensitive_features=WHO)
    )
    assert set(shared.predict(X)) <= {"alive", "died"}
    assert shared.score(X, Y) > 0.5


@pytest.mark.slow
def test_decisions_are_drawn_with_their_chance_and_drawn_again_alike():
    fair = EqualizedOdds(LogisticRegression(), random_state=0)
    fair.fit(X, Y, sensitive_features=WHO)
    chance = fair.predict_proba(X, sensitive_features=WHO)[:, 1]
    assert ((chance > 0.01) & (chance < 0.99)).any()
    first = fair.predict(X, sensitive_features=WHO)
    np.testing.assert_array_equal(first, fair.predict(X, sensitive_features=WHO))
    fair.set_params(random_state=np.random.RandomState(0))
    drawn = [fair.predict(X, sensitive_features=WHO) == "died" for _ in range(400)]
    # Of 400 draws a share departs by 4 standard deviations, 0.1, next to never.
    np.testing.assert_allclose(np.mean(drawn, axis=0), chance, atol=0.1)
    np.testing.assert_array_equal(np.mean(drawn, axis=0)[chance == 1], 1)
    assert (drawn[0] != drawn[1]).any()


def test_counts_of_rows_held_out():
    x, y, who = cohort(seed=1)
    weights = np.random.default_rng(0).random(400)
    fair = EqualizedOdds(LogisticRegression()).fit(X, Y, sensitive_features=WHO)
    counts = fair.expected_counts(x, y, sensitive_features=who, sample_weight=weights)
    chance = fair.predict_proba(x, sensitive_features=who)[:, 1]
    by_hand = rates_by_hand(chance, y == "died", who, weights)
    for name, column in (("false_positive_rate", 0), ("true_positive_rate", 1)):
        found = metrics.group_rate(counts, name)
        np.testing.assert_allclose(found, by_hand[:, column], atol=1e-6)


def test_sources_of_scores():
    """Hard decisions leave the least choice; scores of one order leave the same."""
    cost = {}
    for response in ("predict_proba", "decision_function", "predict"):
        fair = EqualizedOdds(LogisticRegression(), response=response)
        cost[response] = fair.fit(X, Y, sensitive_features=WHO).cost_
        chance = fair.predict_proba(X, sensitive_features=WHO)[:, 1]
        assert (np.ptp(rates_by_hand(chance), axis=0) < 1e-8).all()
        if response == "predict":
            decisions = LogisticRegression().fit(X, Y).predict(X)
            # A group's patients of one decision have one chance.
            for rows in WHO.groupby(["sex", "old"]).indices.values():
                for decision in ("alive", "died"):
                    assert len(set(chance[rows][decisions[rows] == decision])) <= 1
    assert cost["predict_proba"] == pytest.approx(cost["decision_function"])
    assert cost["predict"] > cost["predict_proba"]
    auto = EqualizedOdds(LinearSVC()).fit(X, Y, sensitive_features=WHO)
    asked = EqualizedOdds(LinearSVC(), response="decision_function")
    assert auto.cost_ == asked.fit(X, Y, sensitive_features=WHO).cost_


def test_weights_are_repetitions():
    times = np.random.default_rng(0).integers(0, 3, 400)
    weighted = EqualizedOdds(LogisticRegression()).fit(
        X, Y, sensitive_features=WHO, sample_weight=times
    )
    repeated = EqualizedOdds(LogisticRegression()).fit(
        X.loc[X.index.repeat(times)],
        np.repeat(Y, times),
        sensitive_features=WHO.loc[WHO.index.repeat(times)],
    )
    assert weighted.cost_ == pytest.approx(repeated.cost_, abs=1e-6)
    np.testing.assert_allclose(
        weighted.estimator_.coef_, repeated.estimator_.coef_, atol=1e-3
    )


def test_a_fitted_classifier_is_taken_as_it_is():
    half = np.arange(400) < 200
    model = LogisticRegression().fit(X[half], Y[half])
    fair = EqualizedOdds(FrozenEstimator(model)).fit(
        X[~half], Y[~half], sensitive_features=WHO[~half], sample_weight=np.ones(200)
    )
    np.testing.assert_array_equal(fair.estimator_.coef_, model.coef_)
    assert list(fair.feature_names_in_) == ["score", "noise"]
    with pytest.raises(
        ValueError, match=r"the classes of y, .*; got \['alive', 'died'\]"
    ):
        EqualizedOdds(FrozenEstimator(model)).fit(X, POSITIVE, sensitive_features=WHO)


def test_a_group_without_positives_is_named_and_has_the_others_rate():
    y = np.where((WHO.sex == "f") & (WHO.old == 1), "alive", Y)
    fair = EqualizedOdds(LogisticRegression())
    with pytest.warns(
        UserWarning, match=r"groups without positives: \['sex=f, old=1'\]\. A rate of"
    ):
        fair.fit(X, y, sensitive_features=WHO)
    assert fair.lacking_groups_ == ("sex=f, old=1",)
    report = fair.report()
    assert np.isnan(report.true_positive_rate["sex=f, old=1"])
    np.testing.assert_allclose(
        report.false_positive_rate, report.false_positive_rate.iloc[0], atol=1e-6
    )


def test_a_single_group_has_its_best_threshold():
    fair = EqualizedOdds(LogisticRegression())
    fair.fit(X, Y, sensitive_features=np.zeros(400))
    scores = LogisticRegression().fit(X, Y).predict_proba(X)[:, 1]
    best = min(np.mean((scores >= t) != POSITIVE) for t in [*scores, 2])
    assert fair.cost_ == pytest.approx(best)


def test_a_group_seen_only_at_prediction():
    fair = EqualizedOdds(LogisticRegression()).fit(X, Y, sensitive_features=WHO)
    new = WHO.replace({"sex": {"m": "x"}})
    with pytest.raises(ValueError, match=r"those seen at fit, .*; got 'sex=x, old=0'"):
        fair.predict(X, sensitive_features=new)
    with pytest.raises(ValueError, match=r"the columns seen at fit, .*; got \['sex'\]"):
        fair.predict(X, sensitive_features=WHO[["sex"]])
    shared = EqualizedOdds(LogisticRegression(), shared=True, tolerance=0.2)
    shared.fit(X, Y, sensitive_features=WHO).predict(X, sensitive_features=new)


def test_labels_of_other_classes_are_refused():
    fair = EqualizedOdds(LogisticRegression()).fit(X, Y, sensitive_features=WHO)
    y = Y.astype(object)
    y[3] = "moved"
    with pytest.raises(ValueError, match=r"\['alive', 'died'\]; got \['moved'\] too"):
        fair.score(X, y, sensitive_features=WHO)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("settings", "change", "words"),
    [
        ({"constraint": "parity"}, {}, "constraint must be .* got 'parity'"),
        (
            {"objective": "auc"},
            {},
            "objective must be 'error' or 'balanced_error'; got",
        ),
        ({"costs": (1, -1)}, {}, "costs must be two finite numbers of at least 0"),
        ({"tolerance": 2}, {}, r"tolerance must lie in \[0, 1\]; got 2"),
        ({"response": "odds"}, {}, "response must be .* got 'odds'"),
        (
            {"estimator": LinearRegression()},
            {},
            "must be a classifier; got LinearRegression",
        ),
        ({"estimator": None}, {}, "must be a classifier; got NoneType"),
        (
            {"estimator": LinearSVC(), "response": "predict_proba"},
            {},
            "estimator must have predict_proba; got LinearSVC",
        ),
        (
            {"estimator": KNeighborsClassifier()},
            {"sample_weight": np.ones(400)},
            "must take sample_weight; got KNeighborsClassifier. Leave",
        ),
        ({}, {"sample_weight": -np.ones(400)}, "Negative values in data passed to"),
        (
            {},
            {"sample_weight": (WHO.sex == "m").to_numpy().astype(float)},
            r"got none in \['sex=f, old=0', 'sex=f, old=1'\]",
        ),
        (
            {},
            {"sensitive_features": None},
            "sensitive_features must be given, .*; got None",
        ),
        (
            {},
            {"sensitive_features": WHO[:9]},
            "must have the 400 rows of X; got 9 rows",
        ),
        ({}, {"y": np.arange(400) % 3}, "y must have 2 classes; got 3"),
        ({}, {"y": np.zeros(400)}, "y must have 2 classes; got 1"),
        ({}, {"y": (WHO.sex + WHO.old.astype(str)) == "m1"}, None),
    ],
)
def test_what_cannot_be_is_refused(settings, change, words):
    fair = EqualizedOdds(**({"estimator": LogisticRegression()} | settings))
    given = {"X": X, "y": Y, "sensitive_features": WHO} | change
    words = words or "needs groups with patients of both classes; got none"
    with pytest.raises(ValueError, match=words):
        fair.fit(**given)


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("routing")
def test_groups_reach_the_steps_that_ask_for_them():
    repair = (
        DisparateImpactRemover(0.5)
        .set_fit_request(sensitive_features=True)
        .set_transform_request(sensitive_features=True)
    )
    inner = Pipeline([("repair", repair), ("model", LogisticRegression())])
    fair = (
        EqualizedOdds(inner, tolerance=0.05)
        .set_fit_request(sensitive_features=True)
        .set_predict_request(sensitive_features=True)
        .set_score_request(sensitive_features=True)
    )
    outer = make_pipeline(StandardScaler().set_output(transform="pandas"), fair)
    outer.fit(X, Y, sensitive_features=WHO)
    assert set(outer.predict(X, sensitive_features=WHO)) == {"alive", "died"}
    scaled = StandardScaler().set_output(transform="pandas").fit_transform(X)
    assert outer.score(X, Y, sensitive_features=WHO) == pytest.approx(
        clone(fair)
        .fit(scaled, Y, sensitive_features=WHO)
        .score(scaled, Y, sensitive_features=WHO)
    )
    # Older ones score without what they were given.
    if parse_version(sklearn.__version__) >= parse_version("1.8"):
        folds = cross_val_score(outer, X, Y, params={"sensitive_features": WHO}, cv=2)
        assert (folds > 0.4).all()


@pytest.mark.usefixtures("routing")
def test_weights_reach_the_step_that_asks_for_them():
    weights = np.random.default_rng(0).random(400)
    model = LogisticRegression().set_fit_request(sample_weight=True)
    fair = EqualizedOdds(make_pipeline(model))
    fair.fit(X, Y, sensitive_features=WHO, sample_weight=weights)
    expected = LogisticRegression().fit(X, Y, sample_weight=weights)
    np.testing.assert_allclose(fair.estimator_[-1].coef_, expected.coef_)
    with pytest.raises(
        ValueError, match="estimator.fit must take sample_weight; got Pipeline"
    ):
        EqualizedOdds(make_pipeline(LogisticRegression())).fit(
            X, Y, sensitive_features=WHO, sample_weight=weights
        )


def test_clone_and_pickle():
    fair = EqualizedOdds(LogisticRegression(C=0.5), tolerance=0.1, random_state=3)
    again = clone(fair).set_params(estimator__C=2.0)
    assert again.get_params()["estimator__C"] == 2.0
    assert fair.estimator.C == 0.5
    fair.fit(X, Y, sensitive_features=WHO)
    loaded = pickle.loads(pickle.dumps(fair))
    np.testing.assert_array_equal(
        loaded.predict(X, sensitive_features=WHO),
        fair.predict(X, sensitive_features=WHO),
    )


class OfEveryOther(EqualizedOdds):
    """With the groups that scikit-learn's checks do not give: every other pair of rows.

    To predict it needs none, having one rule for all.
    """

    def fit(self, X, y, sample_weight=None):
        rows = 0 if y is None else len(np.asarray(y))
        groups = np.arange(rows) // 2 % 2
        return super().fit(X, y, sensitive_features=groups, sample_weight=sample_weight)


SHARED = OfEveryOther(LogisticRegression(), shared=True, tolerance=1.0, random_state=0)


@pytest.mark.slow
@pytest.mark.usefixtures("untyped")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("estimator", "check"),
    list(estimator_checks_generator(SHARED)),
    ids=lambda value: getattr(getattr(value, "func", None), "__name__", "it"),
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


class Unsure(LogisticRegression):
    """Has no score for some patients."""

    def predict_proba(self, X):
        chance = super().predict_proba(X)
        chance[np.asarray(X)[:, 0] == 99.0] = np.nan
        return chance


def test_a_score_that_is_not_finite():
    fair = EqualizedOdds(Unsure(), shared=True, tolerance=1.0).fit(
        X, Y, sensitive_features=WHO
    )
    other = X.astype(float)
    other.iloc[0, 0] = 99.0
    with pytest.raises(
        ValueError, match="predict_proba must give finite scores; got nan"
    ):
        fair.predict_proba(other, sensitive_features=WHO)
