"""The mixture of classifiers, with both back ends, as scikit-learn's users have it."""

import functools
import json
import pickle
import warnings

import jax
import numpy as np
import optax
import pandas as pd
import pytest
import sklearn
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Perceptron
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fairjax.mitigation import EqualizedOdds, ExponentiatedGradient, FlaxClassifier
from fairjax.mitigation.flax_responses import FlaxResponses, mixture_probability
from fairjax.models import MLP

FLAX, SKLEARN = FlaxClassifier(), LogisticRegression()
# The reduction of the other is fairlearn's.
BACKENDS = ["flax", pytest.param("sklearn", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def patients():
    rng = np.random.default_rng(0)
    groups = rng.choice(["a", "b", "c"], 600, p=[0.5, 0.3, 0.2])
    shift = pd.Series(groups).map({"a": 0.0, "b": 0.8, "c": -0.8}).to_numpy()
    x = rng.normal(size=(600, 3)) + shift[:, None]
    labels = (x @ [1.0, 0.5, 0.2] + rng.normal(size=600) > 0).astype(int)
    return x, labels, groups


@pytest.fixture(scope="module")
def fitted(patients):
    """Fits a back end where a test first asks for it."""
    x, labels, groups = patients

    @functools.cache
    def fit(backend):
        learner = FLAX if backend == "flax" else SKLEARN
        fair = ExponentiatedGradient(
            learner, constraint="demographic_parity", random_state=0
        )
        return fair.fit(x, labels, sensitive_features=groups)

    return fit


@pytest.fixture(scope="module")
def expected_score(patients):
    x, labels, groups = patients
    fair = ExponentiatedGradient(FLAX, difference_bound=0.05, random_state=0)
    return fair.fit(x, labels, sensitive_features=groups).score(x, labels)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_bound_holds_in_expectation(fitted, patients, backend):
    x, labels, groups = patients
    fair = fitted(backend)
    chance = fair.predict_proba(x)[:, 1]
    assert ((chance >= 0) & (chance <= 1)).all()
    rates = [chance[groups == g].mean() for g in "abc"]
    np.testing.assert_allclose(rates, fair.report()["selection_rate"], atol=1e-6)
    worst = max(abs(rate - chance.mean()) for rate in rates)
    assert worst <= 0.01 + 1e-6
    assert fair.violation_ == pytest.approx(worst - 0.01, abs=1e-9)
    wrong = np.where(labels == 1, 1 - chance, chance).mean()
    assert fair.cost_ == pytest.approx(wrong)
    assert fair.score(x, labels) == pytest.approx(1 - wrong)
    # Without the bound rates differ by more, at less error.
    free = LogisticRegression().fit(x, labels).predict(x)
    assert np.ptp([free[groups == g].mean() for g in "abc"]) > 0.3
    assert (free != labels).mean() < wrong


@pytest.mark.slow
def test_both_back_ends_reach_errors_alike(fitted):
    assert fitted("flax").cost_ <= fitted("sklearn").cost_ + 0.01
    for fair in map(fitted, ("flax", "sklearn")):
        assert fair.chances_.sum() == pytest.approx(1)
        assert (fair.chances_ > 0).all()
        assert 0 <= fair.best_gap_ < 0.02
        assert fair.iterations_ >= 5


@pytest.mark.parametrize("backend", BACKENDS)
def test_expected_counts_of_other_rows(fitted, patients, backend):
    x, labels, groups = (part[:200] for part in patients)
    fair = fitted(backend)
    found = fair.expected_counts(x, labels, sensitive_features=groups)
    chance = fair.predict_proba(x)[:, 1]
    positives = (groups == "b") & (labels == 1)
    assert found.counts[1, 1, 1] == pytest.approx(chance[positives].sum())
    assert found.counts.sum() == pytest.approx(200)


@pytest.mark.parametrize("backend", BACKENDS)
def test_predict_draws_with_the_chances(fitted, patients, backend):
    x, _, _ = patients
    fair = clone(fitted(backend)).set_params(random_state=None)
    fair.__dict__.update(
        {k: v for k, v in fitted(backend).__dict__.items() if k.endswith("_")}
    )
    np.random.seed(0)  # noqa: NPY002 -- random_state=None is NumPy's own
    drawn = np.mean([fair.predict(x) for _ in range(300)], axis=0)
    chance = fair.predict_proba(x)[:, 1]
    np.testing.assert_allclose(drawn, chance, atol=0.15)
    assert (drawn[chance == 0] == 0).all()
    again = fitted(backend)
    np.testing.assert_array_equal(again.predict(x), again.predict(x))


@pytest.mark.slow
@pytest.mark.parametrize("learner", [FLAX, SKLEARN])
def test_a_rare_outcome_is_selected_by_the_balanced_error(patients, learner):
    x, labels, groups = patients
    rare = labels * (np.random.default_rng(0).random(600) < 0.2)
    options = {"difference_bound": 0.05, "random_state": 0, "max_iterations": 5}
    plain, balanced, costly = (
        ExponentiatedGradient(learner, **options, **more).fit(
            x, rare, sensitive_features=groups
        )
        for more in (
            {},
            {"objective": "balanced_error"},
            {"costs": (1.0, 1 / rare.mean() - 1)},
        )
    )
    assert plain.report()["selection_rate"].mean() < 0.05
    assert balanced.report()["selection_rate"].mean() > 0.2
    chance = balanced.predict_proba(x)[:, 1]
    wrong = [chance[rare == 0].mean(), 1 - chance[rare == 1].mean()]
    assert balanced.cost_ == pytest.approx(np.mean(wrong))
    assert costly.report()["selection_rate"].mean() > 0.2


@pytest.mark.parametrize(
    ("constraint", "column"),
    [
        ("true_positive_rate_parity", "true_positive_rate"),
        pytest.param(
            *("false_positive_rate_parity", "false_positive_rate"),
            marks=pytest.mark.slow,
        ),
        pytest.param("error_rate_parity", "error_rate", marks=pytest.mark.slow),
    ],
)
def test_each_constraint_narrows_its_rate(patients, constraint, column):
    x, labels, groups = patients
    fair = ExponentiatedGradient(
        FLAX, constraint=constraint, difference_bound=0.02, random_state=0
    ).fit(x, labels, sensitive_features=groups)
    assert np.ptp(fair.report()[column]) <= 2 * 0.02 + 1e-3


@pytest.mark.slow
def test_equalized_odds_bound_both_rates(patients):
    x, labels, groups = patients
    fair = ExponentiatedGradient(
        FLAX, constraint="equalized_odds", difference_bound=0.05, random_state=0
    ).fit(x, labels, sensitive_features=groups)
    rates = fair.report()
    assert np.ptp(rates["true_positive_rate"]) <= 0.1 + 1e-3
    assert np.ptp(rates["false_positive_rate"]) <= 0.1 + 1e-3


@pytest.mark.slow
def test_a_ratio_bound(patients):
    x, labels, groups = patients
    fair = ExponentiatedGradient(FLAX, ratio_bound=0.9, random_state=0)
    rates = fair.fit(x, labels, sensitive_features=groups).report()["selection_rate"]
    chance = fair.predict_proba(x)[:, 1].mean()
    assert rates.min() / chance >= 0.9 - 2e-3
    assert chance / rates.max() >= 0.9 - 2e-3


@pytest.mark.slow
def test_logistic_responses_are_scikit_learns(patients):
    x, labels, groups = patients
    codes = pd.factorize(groups)[0]
    cells = 2 * codes + labels
    answer = FlaxResponses(
        FlaxClassifier(steps=60), x, cells, np.ones(600), num_cells=6, lanes=3, key=0
    )
    rng = np.random.default_rng(1)
    prices = np.concatenate([[[1, -1] * 3], rng.normal(size=(2, 6))])
    found = answer(prices)
    scaled = StandardScaler().fit_transform(x)
    for lane, price in enumerate(prices):
        cost = price[cells]
        weights = np.abs(cost) / np.abs(cost).mean()
        line = LogisticRegression(tol=1e-8, max_iter=1000).fit(
            scaled, cost < 0, sample_weight=weights
        )
        expected = np.bincount(cells, line.predict(scaled), 6) / np.bincount(cells)
        np.testing.assert_allclose(found[lane], expected, atol=0.02)


@pytest.mark.slow
def test_lanes_are_answered_apart(patients):
    x, labels, groups = patients
    cells = 2 * pd.factorize(groups)[0] + labels
    prices = np.random.default_rng(2).normal(size=(3, 6))

    def answers(asked):
        # In as many lanes as a fit, whose program it is.
        responses = FlaxResponses(
            FLAX, x, cells, np.ones(600), num_cells=6, lanes=8, key=0
        )
        return responses(asked)

    together = answers(prices[[0, 1, 2] * 2 + [0, 1]])
    for lane in range(3):
        alone = answers(prices[[lane] * 8])
        np.testing.assert_allclose(together[[lane] * 8], alone, atol=0.01)


@pytest.mark.slow
def test_weights_stand_for_copies(patients):
    x, labels, groups = (part[:300] for part in patients)
    # As many copies as patients, so that both are one compiled program.
    weights = np.random.default_rng(0).permutation(np.tile([0, 1, 2], 100))
    rows = np.repeat(np.arange(300), weights)
    options = {"difference_bound": 0.05, "random_state": 0}
    learner = FlaxClassifier(penalty=0.0, standardize=False)
    weighted = ExponentiatedGradient(learner, **options).fit(
        x, labels, sensitive_features=groups, sample_weight=weights
    )
    copied = ExponentiatedGradient(learner, **options).fit(
        x[rows], labels[rows], sensitive_features=groups[rows]
    )
    np.testing.assert_allclose(
        weighted.report(), copied.report(), atol=0.02, equal_nan=False
    )


@pytest.mark.slow
def test_a_network_on_batches_with_an_explicit_key(patients):
    x, labels, groups = patients
    learner = FlaxClassifier(
        lambda d, rngs: MLP(d, (8,), 1, rngs=rngs),
        optimizer=optax.adam(1e-2),
        steps=60,
        batch_size=64,
        penalty=0.1,
    )
    options = {"max_iterations": 4, "difference_bound": 0.05}
    fits = [
        ExponentiatedGradient(learner, random_state=seed, **options).fit(
            x, labels, sensitive_features=groups
        )
        for seed in (0, 0, 1)
    ]
    chances = [fair.predict_proba(x) for fair in fits]
    np.testing.assert_array_equal(chances[0], chances[1])
    assert not np.array_equal(chances[0], chances[2])
    kernels = jax.tree.leaves(fits[0].mixture_.params)
    assert all(len(leaf) == len(fits[0].chances_) for leaf in kernels)


@pytest.mark.usefixtures("untyped")
def test_saved_and_loaded_without_pickle(fitted, patients, tmp_path):
    x, labels, groups = patients
    path = tmp_path / "fair.npz"
    fitted("flax").save(path)
    with np.load(path, allow_pickle=False) as stored:
        assert "told" in stored.files
    loaded = ExponentiatedGradient.load(path, FLAX)
    np.testing.assert_array_equal(
        loaded.predict_proba(x), fitted("flax").predict_proba(x)
    )
    pd.testing.assert_frame_equal(loaded.report(), fitted("flax").report())
    assert loaded.best_gap_ == fitted("flax").best_gap_
    one = loaded.expected_counts(x, labels, sensitive_features=groups).counts
    other = fitted("flax").counts_.counts
    np.testing.assert_allclose(one, other)
    assert [p.name for p in tmp_path.iterdir()] == ["fair.npz"]
    wider = FlaxClassifier(lambda d, rngs: MLP(d, (4,), 1, rngs=rngs))
    with pytest.raises(ValueError, match="must have parameters of the shapes .*; got"):
        ExponentiatedGradient.load(path, wider)
    whole = path.read_bytes()
    damaged = bytes([*whole[:500], whole[500] ^ 255, *whole[501:]])
    for content in (b"no archive", b"", whole[: len(whole) // 2], damaged):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="must hold a saved mixture; got another"):
            ExponentiatedGradient.load(path, FLAX)
    with pytest.raises(FileNotFoundError):
        ExponentiatedGradient.load(tmp_path / "none.npz", FLAX)
    with pytest.raises(
        ValueError, match="estimator must be the FlaxClassifier of the fit; got Logis"
    ):
        ExponentiatedGradient.load(path, LogisticRegression())
    of_sklearn = ExponentiatedGradient(SKLEARN, difference_bound=1.0, max_iterations=1)
    of_sklearn.fit(x, labels, sensitive_features=groups)
    with pytest.raises(ValueError, match="must be a FlaxClassifier to be saved; got"):
        of_sklearn.save(path)


def test_what_is_loaded_has_the_settings_of_the_fit(patients, tmp_path):
    x, labels, groups = patients
    fair = ExponentiatedGradient(
        FLAX,
        constraint="equalized_odds",
        difference_bound=0.05,
        costs=(1.0, 2.0),
        max_iterations=3,
        random_state=np.int64(7),
    )
    who = pd.DataFrame({"group": groups, "one": 1})
    fair.fit(x, labels, sensitive_features=who).save(tmp_path / "fair.npz")
    loaded = ExponentiatedGradient.load(tmp_path / "fair.npz", FLAX)
    assert loaded.get_params() == fair.get_params()
    np.testing.assert_array_equal(loaded.predict(x), fair.predict(x))
    one, other = (
        f.expected_counts(x, labels, sensitive_features=who).counts
        for f in (loaded, fair)
    )
    np.testing.assert_array_equal(one, other)
    fair.set_params(random_state=np.random.RandomState(0)).save(tmp_path / "fair.npz")
    loaded = ExponentiatedGradient.load(tmp_path / "fair.npz", FLAX)
    assert loaded.random_state is None


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    "costs", [np.array([1.0, 2.0]), (np.float32(1), np.float32(2)), [1, 2]]
)
def test_costs_of_numpy_are_saved(patients, tmp_path, costs):
    x, labels, groups = patients
    fair = ExponentiatedGradient(
        FLAX, max_iterations=np.int64(2), difference_bound=np.float64(1)
    )
    fair.set_params(costs=costs).fit(x, labels, sensitive_features=groups)
    fair.save(tmp_path / "fair.npz")
    loaded = ExponentiatedGradient.load(tmp_path / "fair.npz", FLAX)
    assert loaded.costs == (1.0, 2.0)
    np.testing.assert_array_equal(loaded.predict_proba(x), fair.predict_proba(x))


@pytest.mark.parametrize(
    "part",
    [
        *("settings", "groups", "classes", "features", "best_gap", "format"),
        *("leaf_0", "leaf_1", "leaf_2", "leaf_3", "counts", "multipliers", "told"),
    ],
)
def test_a_file_that_lacks_a_part(fitted, tmp_path, part):
    path = tmp_path / "fair.npz"
    fitted("flax").save(path)
    with np.load(path) as stored:
        arrays = dict(stored)
    told = json.loads(str(arrays["told"]))
    if part in told:
        del told[part]
        arrays["told"] = json.dumps(told)
    else:
        del arrays[part]
    np.savez(path, **arrays)
    with pytest.raises(
        ValueError, match="must hold a saved mixture; got another or a damaged"
    ):
        ExponentiatedGradient.load(path, FLAX)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("settings", {}),
        ("settings", 3),
        ("settings", {"costs": [1, 1], "speed": 2}),
        ("settings", {"costs": [1, 1]}),
        ("groups", [["group"], False, [["a"]]]),
        ("groups", 7),
        ("classes", [0, 1, 2]),
        ("features", ["p"]),
    ],
)
def test_a_file_of_something_else(fitted, tmp_path, part, value):
    path = tmp_path / "fair.npz"
    fitted("flax").save(path)
    with np.load(path) as stored:
        arrays = dict(stored)
    told = json.loads(str(arrays["told"])) | {part: value}
    np.savez(path, **(arrays | {"told": json.dumps(told)}))
    with pytest.raises(
        ValueError, match="must hold a saved mixture; got another or a damaged"
    ):
        ExponentiatedGradient.load(path, FLAX)


def test_a_file_of_another_format(fitted, tmp_path):
    path = tmp_path / "fair.npz"
    fitted("flax").save(path)
    with np.load(path) as stored:
        arrays = dict(stored)
    told = json.loads(str(arrays["told"])) | {"format": 99}
    np.savez(path, **(arrays | {"told": json.dumps(told)}))
    with pytest.raises(ValueError, match="must be of format 1; got 99"):
        ExponentiatedGradient.load(path, FLAX)


@pytest.mark.slow
@pytest.mark.parametrize("value", [0.1, 3e15])
def test_a_constant_feature_changes_nothing(patients, expected_score, value):
    x, labels, groups = patients
    fair = ExponentiatedGradient(FLAX, difference_bound=0.05, random_state=0)
    wider = np.column_stack([x, np.full(600, value)])
    fair.fit(wider, labels, sensitive_features=groups)
    assert fair.score(wider, labels) == pytest.approx(expected_score, abs=0.02)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("unit", [1e-250, 1e306])
def test_the_unit_of_features_does_not_matter(patients, expected_score, unit):
    x, labels, groups = patients
    fair = ExponentiatedGradient(FLAX, difference_bound=0.05, random_state=0)
    fair.fit(x * unit, labels, sensitive_features=groups)
    assert fair.score(x * unit, labels) == pytest.approx(expected_score, abs=0.01)


@pytest.mark.filterwarnings("error")
def test_features_beyond_single_precision(patients):
    x, labels, groups = patients
    fair = ExponentiatedGradient(FlaxClassifier(standardize=False), max_iterations=2)
    with pytest.raises(
        ValueError,
        match="must fit single precision.*; got values beyond it at position 2",
    ):
        fair.fit(x * [1, 1, 1e60], labels, sensitive_features=groups)
    fair = ExponentiatedGradient(FLAX, difference_bound=1.0, max_iterations=2)
    fair.fit(x, labels, sensitive_features=groups)
    with pytest.raises(
        ValueError,
        match="must fit single precision.*; got values beyond it at position 0",
    ):
        fair.predict_proba(x * 1e60)


@pytest.mark.slow
def test_large_numbers_that_differ_by_little(patients):
    x, labels, groups = patients
    fair = ExponentiatedGradient(FLAX, difference_bound=1.0, random_state=0)
    expected = fair.fit(x, labels, sensitive_features=groups).score(x, labels)
    moved = x + 123_456_789
    fair.fit(moved, labels, sensitive_features=groups)
    assert fair.score(moved, labels) == pytest.approx(expected, abs=0.01)


@pytest.mark.slow
def test_what_the_search_saw_is_what_predict_proba_does(patients):
    x, labels, groups = patients
    x = np.column_stack([x, x[:, 0] * 1e-6 + 1e4, np.full(len(x), 0.3)])
    cells = 2 * (groups == "b") + labels
    answer = FlaxResponses(FLAX, x, cells, np.ones(len(x)), num_cells=4, lanes=2, key=0)
    seen = answer(np.array([[1.0, -1.0, 1.0, -2.0], [2.0, -1.0, 1.0, -1.0]]))
    for lane in range(2):
        mixture = answer.mixture(np.array([[0, lane]]), np.ones(1))
        chance = mixture_probability(FLAX, mixture, x)
        means = [chance[cells == cell].mean() for cell in range(4)]
        np.testing.assert_allclose(seen[lane], means, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_clone_and_pickle(fitted, patients, backend):
    fair = fitted(backend)
    fresh = clone(fair)
    assert not hasattr(fresh, "chances_")
    assert fresh.get_params(deep=False).keys() == fair.get_params(deep=False).keys()
    x, _, _ = patients
    back = pickle.loads(pickle.dumps(fair))
    np.testing.assert_array_equal(back.predict_proba(x), fair.predict_proba(x))


def test_data_frames_and_names_of_classes(patients):
    x, labels, groups = patients
    table = pd.DataFrame(x, columns=["p", "q", "r"])
    outcome = np.array(["alive", "dead"])[labels]
    fair = ExponentiatedGradient(FLAX, difference_bound=0.05, random_state=0)
    fair.fit(table, outcome, sensitive_features=pd.DataFrame({"sex": groups}))
    assert fair.classes_.tolist() == ["alive", "dead"]
    assert fair.group_names_ == ("sex=a", "sex=b", "sex=c")
    assert set(fair.predict(table)) <= {"alive", "dead"}
    with pytest.raises(ValueError, match="feature names"):
        fair.predict_proba(table[["q", "p", "r"]])


@pytest.mark.slow
def test_a_pipeline_is_told_its_weights(patients):
    x, labels, groups = patients
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    options = {"difference_bound": 0.05, "max_iterations": 8}
    fair = ExponentiatedGradient(
        pipeline, sample_weight_name="logisticregression__sample_weight", **options
    )
    fair.fit(x, labels, sensitive_features=groups)
    assert fair.violation_ < 0.01
    with pytest.raises(ValueError, match="must take 'sample_weight', .*; got"):
        ExponentiatedGradient(pipeline).fit(x, labels, sensitive_features=groups)


@pytest.mark.slow
@pytest.mark.parametrize(
    "learner",
    [
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
        VotingClassifier([("a", LogisticRegression()), ("b", "drop")]),
        StackingClassifier([("a", LogisticRegression())], LogisticRegression(), cv=2),
    ],
    ids=lambda learner: type(learner).__name__,
)
def test_searches_and_ensembles_hand_on_weights(patients, learner):
    x, labels, groups = patients
    fair = ExponentiatedGradient(learner, difference_bound=0.05, max_iterations=3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no mixture of the learner's")
        fair.fit(x, labels, sensitive_features=groups)
    plain = clone(learner).fit(x, labels)
    selected = [plain.predict(x)[groups == g].mean() for g in np.unique(groups)]
    assert np.ptp(fair.report()["selection_rate"]) < 0.5 * np.ptp(selected)


def test_ensembles_of_learners_without_weights_are_refused(patients):
    x, labels, groups = patients
    for learner in (
        GridSearchCV(KNeighborsClassifier(), {}),
        VotingClassifier([("a", LogisticRegression()), ("b", KNeighborsClassifier())]),
    ):
        with pytest.raises(ValueError, match="must take 'sample_weight', .*; got"):
            ExponentiatedGradient(learner).fit(x, labels, sensitive_features=groups)


def test_a_flax_learner_pickles_with_a_function_that_makes_its_optimizer():
    optimizer = functools.partial(optax.adam, 0.05)
    learner = FlaxClassifier(optimizer=optimizer, steps=60)
    again = pickle.loads(pickle.dumps(learner))
    assert again.optimizer.args == (0.05,)
    assert clone(ExponentiatedGradient(learner)).estimator is learner
    x, cells = np.array([[-1.0], [1.0], [-2.0], [2.0]]), np.array([0, 1, 0, 1])
    prices = np.array([[1.0, -1.0], [-1.0, -1.0]])
    for one in (again, FlaxClassifier(optimizer=optax.adam(0.05), steps=60)):
        answer = FlaxResponses(one, x, cells, np.ones(4), num_cells=2, lanes=2, key=0)
        np.testing.assert_array_equal(answer(prices), [[0, 1], [1, 1]])


@pytest.mark.slow
def test_a_pipeline_is_told_its_weights_by_metadata_routing(patients):
    x, labels, groups = patients
    options = {"difference_bound": 0.05, "max_iterations": 4}
    by_name = "logisticregression__sample_weight"
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    fair = ExponentiatedGradient(pipeline, sample_weight_name=by_name, **options)
    expected = fair.fit(x, labels, sensitive_features=groups).predict_proba(x)
    with sklearn.config_context(enable_metadata_routing=True):
        routed = make_pipeline(
            StandardScaler().set_fit_request(sample_weight=False),
            LogisticRegression().set_fit_request(sample_weight=True),
        )
        fair = ExponentiatedGradient(routed, **options)
        found = fair.fit(x, labels, sensitive_features=groups).predict_proba(x)
        words = r"must take '.*sample_weight'.*; got.*call set_fit_request"
        for learner, name in (
            (routed, by_name),
            (pipeline, by_name),
            (pipeline, "sample_weight"),
        ):
            fair = ExponentiatedGradient(learner, sample_weight_name=name)
            with pytest.raises(ValueError, match=words):
                fair.fit(x, labels, sensitive_features=groups)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_a_bound_out_of_the_learners_reach_is_said(patients):
    x, labels, groups = patients
    alike = np.zeros_like(x[:, :1])
    alike[groups == "c"] = 1
    # Its one feature is a group: only all, nobody or a group can be selected.
    fair = ExponentiatedGradient(
        FlaxClassifier(steps=1, penalty=1e6), max_iterations=1, difference_bound=0.0
    )
    with pytest.warns(
        UserWarning, match="meets the bound 0; the mixture exceeds it by"
    ):
        fair.fit(x, labels, sensitive_features=groups)
    assert fair.violation_ > 0


@pytest.mark.slow
def test_a_group_without_positives(patients):
    x, labels, groups = patients
    labels = np.where(groups == "c", 0, labels)
    fair = ExponentiatedGradient(
        FLAX, constraint="true_positive_rate_parity", random_state=0
    )
    with pytest.warns(UserWarning, match=r"groups \['c'\] lack positives"):
        fair.fit(x, labels, sensitive_features=groups)
    rates = fair.report()["true_positive_rate"]
    assert np.isnan(rates["c"])
    assert abs(rates["a"] - rates["b"]) <= 0.02 + 1e-3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"estimator": None}, "estimator must be an instance .*; got"),
        ({"estimator": KNeighborsClassifier()}, "must take 'sample_weight', .*; got"),
        (
            {"constraint": "fairness"},
            "constraint must be '.* or '.*; got '(parity|fairness)'",
        ),
        ({"difference_bound": 2.0}, r"must lie in \[0, 1\]; got 2.0"),
        ({"estimator": LogisticRegression}, "estimator must be an instance .*; got"),
        (
            {"estimator": LinearRegression()},
            "estimator must be a classifier; got LinearRegression",
        ),
        ({"ratio_slack": 0.1}, "ratio_slack needs a ratio_bound; got only 0.1"),
        ({"costs": (0.0, 0.0)}, r"must not both be 0; got \(0.0, 0.0\)"),
        *(
            ({"estimator": learner, name: value}, words)
            for learner in (FLAX, SKLEARN)
            for name, value, words in (
                ("max_iterations", 0, "max_iterations must be at least 1"),
                ("gap_tolerance", -1.0, "gap_tolerance must be 0 or more; got -1.0"),
                ("gap_tolerance", np.nan, "gap_tolerance must be 0 or more; got nan"),
                ("learning_rate", 0.0, "learning_rate must be finite and above 0; got"),
                (
                    "multiplier_bound",
                    -1.0,
                    "multiplier_bound must be finite and above 0; got",
                ),
            )
        ),
        ({"estimator": FlaxClassifier(steps=0)}, "steps must be at least 1"),
        (
            {"estimator": FlaxClassifier(batch_size=8)},
            "optimizer must suit batches .*; got None",
        ),
        ({"estimator": FlaxClassifier(penalty=-1.0)}, "penalty"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_settings_that_cannot_be(patients, change, words):
    x, labels, groups = patients
    fair = ExponentiatedGradient(FLAX).set_params(**change)
    with pytest.raises(ValueError, match=words):
        fair.fit(x, labels, sensitive_features=groups)


def test_patients_that_cannot_be(patients):
    x, labels, groups = patients
    fair = ExponentiatedGradient(FLAX)
    with pytest.raises(
        ValueError, match="sensitive_features must be given, .*; got None"
    ):
        fair.fit(x, labels)
    with pytest.raises(ValueError, match="y must have 2 classes; got 3"):
        fair.fit(x, np.arange(600) % 3, sensitive_features=groups)
    table = pd.DataFrame({"sex": labels, "p": x[:, 0]})
    with pytest.raises(
        ValueError, match=r"must not include the sensitive features; got \['sex'\]"
    ):
        fair.fit(table, labels, sensitive_features=table[["sex"]])
    with pytest.raises(
        ValueError, match="must be None for a scikit-learn estimator; got weights"
    ):
        ExponentiatedGradient(Perceptron()).fit(
            x, labels, sensitive_features=groups, sample_weight=np.ones(600)
        )
    missing = x.copy()
    missing[3, 1] = np.nan
    with pytest.raises(ValueError, match="contains NaN"):
        fair.fit(missing, labels, sensitive_features=groups)


@pytest.mark.slow
def test_features_of_the_other_back_end(patients):
    x, labels, groups = patients
    fair = ExponentiatedGradient(SKLEARN, max_iterations=2, difference_bound=1.0)
    lists = x.tolist()
    chance = fair.fit(lists, labels, sensitive_features=groups).predict_proba(lists)
    np.testing.assert_array_equal(chance, fair.predict_proba(x))
    assert fair.n_features_in_ == 3
    with pytest.raises(ValueError, match="is expecting 3 features"):
        fair.predict_proba(x[:, :2])
    table = pd.DataFrame(x, columns=["p", "q", "r"])
    fair.fit(table, labels, sensitive_features=groups)
    assert list(fair.feature_names_in_) == ["p", "q", "r"]
    with pytest.raises(ValueError, match="feature names"):
        fair.predict_proba(table[["q", "p", "r"]])
    with pytest.raises(
        TypeError, match="must be dense for fairlearn's reduction; got a sparse"
    ):
        fair.fit(csr_array(x), labels, sensitive_features=groups)


@pytest.mark.usefixtures("untyped")
def test_weights_that_cannot_be(fitted, patients):
    x, labels, groups = patients
    fair = fitted("flax")
    with pytest.raises(ValueError, match="finite and at least 0; got -1.0"):
        fair.expected_counts(
            x, labels, sensitive_features=groups, sample_weight=-np.ones(600)
        )
    with pytest.raises(ValueError, match="columns must have equal lengths; got"):
        fair.expected_counts(x, labels[:9], sensitive_features=groups)
    with pytest.raises(ValueError, match="Negative values"):
        fair.score(x, labels, sample_weight=-np.ones(600))
    with pytest.raises(ValueError, match="at least one non-zero"):
        fair.score(x, labels, sample_weight=np.zeros(600))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fair.score(x, labels[:9])


@pytest.mark.slow
def test_fitted_again_with_the_other_back_end(patients):
    x, labels, groups = patients
    fair = ExponentiatedGradient(max_iterations=2, difference_bound=1.0)
    for learner, own, other in (
        (FLAX, "mixture_", "predictors_"),
        (SKLEARN, "predictors_", "mixture_"),
        (FLAX, "mixture_", "predictors_"),
    ):
        fair.set_params(estimator=learner).fit(x, labels, sensitive_features=groups)
        assert hasattr(fair, own)
        assert not hasattr(fair, other)


@pytest.mark.filterwarnings("ignore:These rules need each patient's group")
def test_a_group_whose_patients_all_weigh_nothing(patients):
    x, labels, groups = patients
    weights = (groups != "b").astype(float)
    fits = [ExponentiatedGradient(FLAX), EqualizedOdds(LogisticRegression())]
    words = r"must have patients of positive weight; got none in \['b'\]"
    for fair in fits:
        with pytest.raises(ValueError, match=words):
            fair.fit(x, labels, sensitive_features=groups, sample_weight=weights)


@pytest.mark.slow
def test_outcomes_in_pandas_own_types(patients):
    x, labels, groups = patients
    fair = ExponentiatedGradient(FLAX, max_iterations=2, difference_bound=1.0)
    fair.fit(x, pd.array(labels == 1, dtype="boolean"), sensitive_features=groups)
    assert fair.classes_.tolist() == [False, True]
    outcome = pd.Series(labels, dtype="Int64")
    outcome[0] = pd.NA
    with pytest.raises(ValueError, match="contains NaN"):
        fair.fit(x, outcome, sensitive_features=groups)
