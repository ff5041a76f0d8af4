"""Tables to arrays: what is read, what is refused in which words, what is found."""

import gzip
import hashlib
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairjax.audit._errors import AuditError
from fairjax.audit.options import Options
from fairjax.audit.reading import _quality
from fairjax.audit.reading.table import read

CSV = """\
pid,died,risk,sex,age,note
a,0,0.1,F,17,"one, two"
b,1,0.7,F,40,
b,0,0.6,M,39,x
c,1,0.4,,66,x
"""
PACKED = gzip.compress(CSV.encode() * 50, mtime=0)


def options(**changes):
    given = {"outcome": "died", "scores": "risk", "attributes": "sex"}
    return Options(**(given | {"thresholds": [0.5]} | changes))


def save(folder, text, name="table.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def frame(**columns):
    base = {"died": [0, 1, 0, 1], "risk": [0.1, 0.7, 0.6, 0.4], "sex": list("FFMM")}
    return pd.DataFrame(base | columns)


def refusal(table, **changes):
    with pytest.raises(AuditError) as caught:
        read(options(**changes), table)
    return str(caught.value)


def codes(data):
    return [finding.code for finding in data.findings]


def by_code(data, code):
    (found,) = (finding for finding in data.findings if finding.code == code)
    return found


def test_a_csv_file_column_by_column(tmp_path):
    path = save(tmp_path, CSV)
    asked = options(
        attributes=["sex", "age"], bins={"age": [18, 40]}, patient_id="pid", names="Old"
    )
    data = read(asked, str(path))
    assert (data.source, data.rows_read, data.rows_left_out) == ("table.csv", 4, {})
    assert data.missing["died"] == data.missing["risk"] == 0
    assert data.missing["sex"] == 1
    assert data.sha256 == hashlib.sha256(CSV.encode()).hexdigest()
    assert (data.outcome, data.positive) == ("died", "1")
    assert data.labels.tolist() == [0, 1, 0, 1]
    assert data.labels.dtype == np.int8
    sex, age = data.attributes
    assert (sex.levels, sex.codes.tolist()) == (("F", "M", "missing"), [0, 0, 1, 2])
    assert sex.codes.dtype == np.int32
    assert age.levels == ("under 18", "18 to 39", "40 and over")
    assert age.codes.tolist() == [0, 2, 1, 2]
    assert (sex.binned, age.binned) == (None, "cut at 18, 40")
    (model,) = data.models
    assert (model.name, model.column, model.threshold) == ("Old", "risk", 0.5)
    assert model.scores.tolist() == [0.1, 0.7, 0.6, 0.4]
    assert model.decisions.tolist() == [False, True, True, False]
    assert data.patients.tolist() == [0, 1, 1, 2]
    assert data.num_patients == 3


def same(one, other):
    assert one.labels.tolist() == other.labels.tolist()
    assert one.positive == other.positive
    for a, b in zip(one.models, other.models, strict=True):
        np.testing.assert_array_equal(a.scores, b.scores)
        np.testing.assert_array_equal(a.decisions, b.decisions)
    for a, b in zip(one.attributes, other.attributes, strict=True):
        assert a.levels == b.levels
        np.testing.assert_array_equal(a.codes, b.codes)
    assert one.num_patients == other.num_patients
    np.testing.assert_array_equal(one.patients, other.patients)
    assert one.findings == other.findings


@pytest.fixture(scope="module")
def mixed():
    """Text, whole numbers with gaps, categories, booleans, identifiers."""
    rng = np.random.default_rng(0)
    n = 400
    return pd.DataFrame(
        {
            "pid": rng.integers(0, 150, n),
            "died": rng.random(n) < 0.3,
            "risk": rng.random(n),
            "new": rng.random(n).astype(np.float32).astype(float),
            "sex": rng.choice(["F", "M", None], n),
            "site": np.where(rng.random(n) < 0.1, np.nan, rng.integers(1, 12, n)),
            "age": np.where(rng.random(n) < 0.1, np.nan, rng.normal(60, 9, n)),
            "urgent": rng.random(n) < 0.5,
        }
    )


ASKED = {
    "scores": ["risk", "new"],
    "attributes": ["sex", "site", "age", "urgent"],
    "bins": {"age": 4},
    "patient_id": "pid",
}


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "tsv", "categorical"])
def test_every_format_gives_the_same(mixed, tmp_path, kind):
    wanted = read(options(**ASKED), mixed)
    assert wanted.attributes[1].levels == (*map(str, range(1, 12)), "missing")
    assert len(wanted.attributes[2].levels) == 5
    table = tmp_path / f"table.{kind}"
    if kind == "categorical":
        table = mixed.astype({"sex": "category", "pid": "category"})
    elif kind == "parquet":
        mixed.to_parquet(table, row_group_size=64)
    else:
        mixed.to_csv(table, index=False, sep="\t" if kind == "tsv" else ",")
    same(read(options(**ASKED), table), wanted)


def test_a_locale_with_commas(mixed, tmp_path):
    path = tmp_path / "table.csv"
    mixed.to_csv(path, index=False, sep=";", decimal=",")
    asked = options(**ASKED, separator=";", decimal=",")
    same(read(asked, path), read(options(**ASKED), mixed))


def test_rows_in_several_batches(tmp_path, monkeypatch):
    """Codes and patients agree across batches, and rows are numbered through."""
    monkeypatch.setattr("fairjax.audit.reading._sources._BATCH_ROWS", 7)
    n = 100
    table = pd.DataFrame(
        {
            "died": np.arange(n) % 2,
            "risk": np.linspace(0, 1, n),
            "sex": [f"level {i // 10}" for i in range(n)],
            "pid": [f"p{i % 30}" for i in range(n)],
        }
    )
    table.to_parquet(tmp_path / "t.parquet")
    data = read(options(patient_id="pid"), tmp_path / "t.parquet")
    assert data.attributes[0].codes.tolist() == (np.arange(n) // 10).tolist()
    assert data.patients.tolist() == (np.arange(n) % 30).tolist()
    table.loc[73, "risk"] = 7.0
    table.to_parquet(tmp_path / "t.parquet")
    text = refusal(tmp_path / "t.parquet")
    assert "got values outside in 1 of 100 rows, first in data row 74: 7" in text


def test_a_frame_of_more_rows_than_a_first_buffer_holds():
    n = 300_000
    labels = np.arange(n) % 2
    table = frame(died=[0], risk=[0.0], sex=["F"]).iloc[[0] * n].reset_index(drop=True)
    table["died"], table["risk"] = labels, np.arange(n) / n
    data = read(options(), table)
    assert data.labels.tolist() == labels.tolist()
    assert data.models[0].scores[-1] == (n - 1) / n


def test_text_is_kept_as_it_is(tmp_path):
    text = "died,risk,sex\n0,.2,007\n1,.3,=cmd()\n0,.4,None\n1,.1,<script>\n"
    data = read(options(), save(tmp_path, text))
    assert data.attributes[0].levels == ("007", "<script>", "=cmd()", "None")
    assert by_code(data, "formula_like_levels").severity == "info"


@pytest.mark.parametrize(
    ("start", "name"),
    [(b"\xef\xbb\xbf", "t.csv"), (b"\n\n", "t.csv"), (b"", "t.txt"), (b"", "T.CSV")],
)
def test_headers_after_marks_and_empty_lines(tmp_path, start, name):
    data = read(options(), save(tmp_path, start + CSV.encode(), name))
    assert data.labels.tolist() == [0, 1, 0, 1]


def test_windows_lines_and_lines_within_quotes(tmp_path):
    text = 'died,note,risk,sex\r\n0,"a\r\nb",.1,F\r\n1,,.2,M\r\n'
    assert read(options(), save(tmp_path, text)).labels.tolist() == [0, 1]


def test_a_column_that_is_not_needed_may_hold_anything(tmp_path):
    text = b"died,risk,sex,note,note\n0,.1,F,\xe9,1\n1,.2,M,,2\n"
    assert read(options(), save(tmp_path, text)).labels.tolist() == [0, 1]


def test_an_odd_quote_within_a_value_is_no_open_one(tmp_path):
    text = 'died,risk,sex\n0,.1,5" tall\n1,.2,M\n'
    data = read(options(), save(tmp_path, text))
    assert data.attributes[0].levels == ('5" tall', "M")


@pytest.mark.parametrize(
    ("values", "positive", "labels"),
    [
        ([0, 1, 0, 1], None, [0, 1, 0, 1]),
        ([0.0, 1.0, 0.0, 1.0], None, [0, 1, 0, 1]),
        ([False, True, False, True], None, [0, 1, 0, 1]),
        (["FALSE", "TRUE", "false", "true"], None, [0, 1, 0, 1]),
        (["alive", "died", "alive", "died"], "died", [0, 1, 0, 1]),
        (["alive", "Died", "alive", "Died"], "died", [0, 1, 0, 1]),
        ([1, 2, 1, 2], "2", [0, 1, 0, 1]),
        ([1, 2, 1, 2], "1", [1, 0, 1, 0]),
        ([0, 1, 0, 1], "0", [1, 0, 1, 0]),
    ],
)
def test_outcomes(values, positive, labels):
    assert (
        read(options(positive=positive), frame(died=values)).labels.tolist() == labels
    )


@pytest.mark.parametrize(
    ("values", "positive", "words"),
    [
        ([0, 1, 2, 1], None, "has 3 values, '0' (1 row), '1' (2 rows), '2' (1 row)"),
        ([1, 2, 1, 2], None, "or two values of which --positive names one"),
        (["no", "yes", "no", "yes"], None, "'no' (2 rows), 'yes' (2 rows)"),
        (["no", "yes", "no", "yes"], "dead", "one of them 'dead' of --positive"),
        ([0, 0, 0, 0], None, "outcome 'died' is not '1' in all 4 rows"),
        ([1, 1, 1, 1], None, "outcome 'died' is '1' in all 4 rows"),
        ([None] * 4, None, "outcome 'died' is missing in all 4 rows"),
        (
            [0, 1, None, 1],
            None,
            "missing in 1 of 4 rows, first in data row 3; --missing-outcomes drop",
        ),
        (np.linspace(0, 1, 4), None, "has 4 values"),
    ],
)
def test_outcomes_that_are_refused(values, positive, words):
    assert words in refusal(frame(died=values), positive=positive)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.1, 1.2, -3, 0.4], "in 2 of 4 rows, first in data row 2: 1.2"),
        ([0.1, 1.2, -3, 0.4], "if the scores are log-odds, add --logits"),
        ([10, 90, 35, 2.5], "the largest score is 90: divide percentages by 100"),
        ([0.1, np.inf, 0.2, 0.3], "infinite in 1 of 4 rows, first in data row 2"),
        (
            [0.1, np.nan, 0.2, None],
            "score 'risk' is missing in 2 of 4 rows, first in data row 2; --missing-sc",
        ),
        (
            [".1", "high", "0.2", "low"],
            "is not a number in 2 of 4 rows, first in data row 2: 'high'",
        ),
        (["0,1", "0,7", "0.2", "1"], "2 of 4 rows, first in data row 1: '0,1'; if a"),
        (["0,1", "0,7", "0,2", "1"], "if a comma is the decimal mark, add --decimal ,"),
        (pd.to_datetime(["2020-01-01"] * 4), "must be numbers; got timestamp"),
    ],
)
def test_scores_that_are_refused(values, words):
    assert words in refusal(frame(risk=values))


def test_points_where_commas_are_the_decimal_mark(tmp_path):
    path = save(tmp_path, "died;risk;sex\n0;0,5;F\n1;0.25;M\n")
    text = refusal(path, separator=";", decimal=",")
    assert "in 1 of 2 rows, first in data row 2: '0.25'; --decimal , was given" in text


def test_log_odds_become_probabilities():
    values = np.array([-800.0, 0.0, np.log(3), 800.0])
    data = read(options(logits=True), frame(risk=values))
    np.testing.assert_allclose(data.models[0].scores, [0, 0.5, 0.75, 1], rtol=1e-15)
    assert "logits_in_unit_interval" not in codes(data)
    data = read(options(logits=True), frame())
    assert by_code(data, "logits_in_unit_interval").severity == "warning"


def test_rows_without_scores_or_outcomes_are_dropped_when_asked():
    table = frame(
        died=[0, 1, None, 1, 0],
        risk=[None, 0.2, None, 0.4, 0.1],
        new=[0.1, None, 0.3, 0.9, 0.2],
        sex=list("FFMMM"),
    )
    asked = options(
        scores=["risk", "new"], missing_scores="drop", missing_outcomes="drop"
    )
    data = read(asked, table)
    # Each row is counted once, for the first thing that it lacks.
    assert data.rows_left_out == {
        "outcome 'died' missing": 1,
        "score 'risk' missing": 1,
        "score 'new' missing": 1,
    }
    assert data.rows_read == 5
    assert data.labels.tolist() == [1, 0]
    assert [m.scores.tolist() for m in data.models] == [[0.4, 0.1], [0.9, 0.2]]
    assert data.attributes[0].codes.tolist() == [1, 1]
    assert sum(f.code == "rows_left_out" for f in data.findings) == 3
    table["risk"] = np.nan
    assert "no row of 5 is left to audit: 1 outcome" in refusal(
        table, missing_scores="drop", missing_outcomes="drop"
    )


def test_missing_attributes_can_be_refused():
    table = frame(sex=["F", None, "M", " "])
    assert read(options(), table).attributes[0].codes.tolist() == [0, 2, 1, 2]
    assert by_code(read(options(), table), "missing_attribute").rows == 2
    text = refusal(table, missing="refuse")
    assert "attribute 'sex' is missing in 2 of 4 rows, first in data row 2" in text
    assert "missing in all 4 rows" in refusal(frame(sex=[None] * 4))


def test_text_that_says_missing_is_missing():
    data = read(options(), frame(sex=["F", None, "missing", "M"]))
    assert data.attributes[0].levels == ("F", "M", "missing")
    assert data.attributes[0].codes.tolist() == [0, 2, 2, 1]


def test_declared_levels_keep_their_order_and_their_place():
    asked = options(levels={"sex": ["X", "M", "F"]})
    data = read(asked, frame(sex=["F", "M", None, "F"]))
    assert data.attributes[0].levels == ("X", "M", "F", "missing")
    assert data.attributes[0].codes.tolist() == [2, 1, 3, 2]
    assert "'X'" in by_code(data, "empty_groups").message
    text = refusal(frame(sex=list("FMQF")), levels={"sex": ["F", "M"]})
    assert "does not declare in 1 of 4 rows: 'Q'; --levels declares 'F', 'M'" in text


def test_categories_are_declared_levels():
    kind = pd.CategoricalDtype(["M", "X", "F"])
    data = read(options(), frame(sex=pd.Series(list("FFMM"), dtype=kind)))
    assert data.attributes[0].levels == ("M", "X", "F")
    assert data.attributes[0].codes.tolist() == [2, 2, 0, 0]


def test_more_levels_than_can_be_compared():
    many = frame().iloc[[0, 1] * 60].reset_index(drop=True)
    many["sex"] = [f"s{i % 51}" for i in range(120)]
    assert "must have at most 50 categories; got 51 in 120 rows" in refusal(many)
    assert "leave identifiers out" in refusal(many)
    many["age"] = np.arange(120) % 77
    assert "--bins age=quantile:4" in refusal(many, attributes="age")
    many["sex"] = [f"s{i % 50}" for i in range(120)]
    assert len(read(options(), many).attributes[0].levels) == 50
    kind = pd.CategoricalDtype([f"s{i}" for i in range(60)])
    assert "must have at most 50 categories; got 60" in refusal(
        many.assign(sex=many["sex"].astype(kind))
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["frame", "csv", "parquet"])
def test_hundreds_of_thousands_of_levels(tmp_path, kind):
    n = 300_000
    table = pd.DataFrame({"sex": np.arange(n).astype(str)})
    table["died"], table["risk"] = np.arange(n) % 2, 0.5
    path = tmp_path / f"t.{kind}"
    if kind == "csv":
        table.to_csv(path, index=False)
    elif kind == "parquet":
        table.to_parquet(path)
    text = refusal(table if kind == "frame" else path)
    assert re.search(
        r"attribute 'sex' has [\d,]+ different values in the first [\d,]+ rows", text
    )
    assert "far more than the 50 categories" in text
    assert "300,000 different values" in text or kind != "frame"


def test_columns_that_are_not_there_or_there_twice(tmp_path):
    path = save(tmp_path, "Died,risk,risk,sex\n0,.1,.2,F\n")
    assert "no column 'died'; did you mean 'Died'?" in refusal(path)
    assert "has 2 columns named 'risk'" in refusal(path, outcome="Died")
    assert "its columns are 'Died', 'risk', 'risk', 'sex'" in refusal(
        path, outcome="xyzzy"
    )
    twice = pd.concat([frame(), frame()[["sex"]]], axis=1)
    assert "has 2 columns named 'sex'" in refusal(twice)


def test_a_separator_that_was_not_told(tmp_path):
    path = save(tmp_path, "died;risk;sex\n0;0,5;F\n1;0,25;M\n")
    assert "if ';' separates its fields, add --separator ';'" in refusal(path)
    path = save(tmp_path, "died\trisk\tsex\n0\t.5\tF\n1\t.25\tM\n")
    assert "if tab separates its fields, add --separator tab" in refusal(path)


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (b"", "t.csv", "'t.csv' is empty: it has no header and no rows"),
        (b"\n\n", "t.csv", "is empty"),
        (b"died,risk,sex", "t.csv", "no rows: a header of 3 columns and nothing below"),
        (b"died,risk,sex\n\n", "t.csv", "has no rows"),
        (
            b"died,risk,sex\n0,.1,F\n",
            "t.csv",
            "has 1 row; an audit needs at least 2 rows",
        ),
        (CSV.encode(), "t.xlsx", "or .parquet; got 't.xlsx'"),
        (CSV.encode(), "t", "or .parquet; got 't'"),
        (CSV.encode(), "t.parquet", "'t.parquet' is not a Parquet file"),
        (b"", "t.parquet", "is empty"),
        (CSV.encode("utf-16"), "t.csv", "is UTF-16 text; save it as CSV UTF-8"),
        (b"PK\x03\x04....", "t.csv", "'t.csv' must be text, as its suffix says"),
        (PACKED, "t.csv", "'t.csv' must be text"),
        (CSV.encode(), "t.csv.gz", "cannot read 't.csv.gz': Not a gzipped file"),
        (PACKED[:-12], "t.csv.gz", "cannot read 't.csv.gz'"),
        (PACKED[:15] + b"\xff" * 20 + PACKED[35:], "t.csv.gz", "cannot read"),
        (
            b"died,risk,sex\n0,.1,F\n1,.2,\xe9\n",
            "t.csv",
            "column 'sex' of 't.csv' is not UTF-8 text",
        ),
        (
            b"died,risk,sex\n0,.1,F\n1,.2,M,extra\n0,.3\n1,.1,F\n",
            "t.csv",
            "has 3 columns, but more or fewer fields in 2 of 4 rows; the first is data",
        ),
        (b'died,risk,sex\n0,.1,F\n1,.2,"M\n0,.1,F\n', "t.csv", "a quote not closed"),
        (b"PAR1" + bytes(20), "t.parquet", "is not a Parquet file"),
    ],
)
def test_files_that_are_refused(tmp_path, content, name, words):
    assert words in refusal(save(tmp_path, content, name))


def test_paths_that_are_refused(tmp_path):
    assert "is a folder, not a table" in refusal(tmp_path)
    text = refusal(tmp_path / "absent.csv")
    assert text == "cannot read 'absent.csv': no such file or directory"
    with pytest.raises(AuditError, match="no table"):
        read(options())
    assert "has no rows" in refusal(frame().iloc[:0])
    assert "has 1 row" in refusal(frame().iloc[:1])


def test_parquet_without_rows(tmp_path):
    frame().iloc[:0].to_parquet(tmp_path / "t.parquet")
    assert "'t.parquet' has no rows" in refusal(tmp_path / "t.parquet")


def test_a_damaged_parquet_file(tmp_path):
    table = frame(risk=[0.125] * 4)
    table.iloc[[0, 1, 2, 3] * 500].to_parquet(tmp_path / "t.parquet")
    content = bytearray((tmp_path / "t.parquet").read_bytes())
    content[4:400] = bytes(396)
    assert "is damaged" in refusal(save(tmp_path, bytes(content), "t.parquet"))


def test_attributes_that_are_no_categories():
    text = refusal(frame(sex=[[1], [2], [1], [2]]))
    assert "attribute 'sex' must be categories; got list" in text


def test_values_of_mixed_types_are_text():
    data = read(options(), frame(sex=[1, "a", None, 1.5]))
    assert data.attributes[0].levels == ("1", "1.5", "a", "missing")


def test_decisions_instead_of_a_threshold():
    table = frame(treat=["no", "yes", "yes", "no"], flag=[1, 0, 0, 1])
    table["died"] = ["no", "yes", "no", "yes"]
    asked = {"thresholds": (), "positive": "yes"}
    data = read(options(decisions="treat", **asked), table)
    assert data.models[0].decisions.tolist() == [False, True, True, False]
    assert data.models[0].threshold is None
    assert data.models[0].threshold_source == "decisions of column 'treat'"
    data = read(options(decisions="flag", **asked), table)
    assert data.models[0].decisions.tolist() == [True, False, False, True]
    table["treat"] = ["a", "b", "c", "a"]
    assert "decision 'treat' has 3 values" in refusal(table, decisions="treat", **asked)
    table["treat"] = [0, 1, None, 1]
    assert "decision 'treat' is missing in 1 of 4 rows, first in data row 3" in refusal(
        table, decisions="treat", **asked
    )


def split_table():
    return pd.DataFrame(
        {
            "died": [0, 0, 1, 1, 0, 1, 1, 0],
            "risk": [0.1, 0.3, 0.35, 0.9, 0.2, 0.3, 0.34, 0.5],
            "sex": list("FMFMFMFM"),
            "split": ["val"] * 4 + ["test"] * 3 + ["train"],
            "pid": [1, 2, 3, 4, 5, 6, 1, 8],
        }
    )


def test_a_threshold_from_validation_rows_that_are_not_audited():
    asked = {
        "thresholds": (),
        "validation": ("split", "val"),
        "threshold_rule": "youden",
    }
    data = read(options(**asked, patient_id="pid"), split_table())
    (model,) = data.models
    assert model.threshold == 0.35
    assert model.threshold_source == (
        "Youden's index, on 4 validation rows (split = val)"
    )
    assert data.labels.tolist() == [0, 1, 1, 0]
    assert model.decisions.tolist() == [False, False, False, True]
    assert data.rows_left_out == {"used to choose the threshold": 4}
    assert data.num_patients == 4
    assert (
        "split = test (3), split = train (1)" in by_code(data, "several_splits").message
    )
    shared = by_code(data, "patients_in_both_splits")
    assert (shared.severity, shared.rows) == ("warning", 1)
    only_two = split_table().iloc[:6]
    assert "several_splits" not in codes(read(options(**asked), only_two))


def test_the_evaluated_rows_have_no_say_in_the_threshold():
    asked = options(thresholds=(), validation=("split", "val"), threshold_rule="youden")
    table = split_table()
    before = read(asked, table).models[0].threshold
    table.loc[4:, "risk"] = 1 - table["risk"][4:]
    table.loc[4:, "died"] = 1 - table["died"][4:]
    assert read(asked, table).models[0].threshold == before


def test_validation_rows_that_are_refused():
    asked = {"thresholds": (), "threshold_rule": "f1"}
    text = refusal(split_table(), validation=("split", "vali"), **asked)
    assert "no row has 'vali' in column 'split'; did you mean 'val'?" in text
    table = split_table()
    table.loc[:3, "died"] = 0
    text = refusal(table, validation=("split", "val"), **asked)
    assert "without the outcome; got 0 with and 4 without in 4 rows" in text
    table = split_table().iloc[:4]
    text = refusal(table, validation=("split", "val"), **asked)
    assert "no row of 4 is left to audit: 4 used to choose the threshold" in text


def test_thresholds_of_several_models():
    table = frame(new=[0.2, 0.2, 0.2, 0.9])
    data = read(options(scores=["risk", "new"], thresholds=[0.4, 0.2]), table)
    assert [m.threshold for m in data.models] == [0.4, 0.2]
    assert data.models[0].decisions.tolist() == [False, True, True, True]
    assert "one_sided_decisions" in codes(data)
    data = read(options(scores=["risk", "new"], thresholds=[0.4]), table)
    assert [m.threshold for m in data.models] == [0.4, 0.4]
    assert {m.threshold_source for m in data.models} == {"given"}


def test_without_a_threshold_half_is_used_and_said():
    data = read(options(thresholds=()), frame())
    assert (data.models[0].threshold, data.models[0].threshold_source) == (
        0.5,
        "default",
    )
    assert by_code(data, "default_threshold").severity == "warning"
    assert "default_threshold" not in codes(read(options(), frame()))


def test_a_threshold_in_text_is_the_number_that_scores_are(tmp_path):
    """0.3 read from a file is the 0.3 of the option, to the last bit."""
    rows = "".join(f"{i % 2},0.{i:02d},F\n" for i in range(100))
    path = save(tmp_path, "died,risk,sex\n" + rows)
    for i in (7, 29, 30, 57, 58):
        data = read(options(thresholds=[i / 100]), path)
        assert int(data.models[0].decisions.sum()) == 100 - i


def test_patients():
    table = frame(pid=[7, 7, 9, 9], sex=list("FMMM"))
    data = read(options(patient_id="pid"), table)
    assert data.patients.tolist() == [0, 0, 1, 1]
    found = by_code(data, "inconsistent_attribute")
    assert found.message.startswith("1 of 2 patients have rows with different values")
    assert found.rows == 2
    assert by_code(data, "several_rows_per_patient").rows == 4
    assert "inconsistent_attribute" not in codes(
        read(options(patient_id="pid"), frame(pid=[7, 7, 9, 9]))
    )
    for ids in ([7, None, 9, 9], ["a", "", " ", "b"], ["a", None, None, "b"]):
        text = refusal(frame(pid=ids), patient_id="pid")
        assert "patient id 'pid' is missing in" in text
        assert "first in data row 2" in text


def parquet(tmp_path, **columns):
    """A file with columns as Arrow has them, beside those of the usual table."""
    made = pa.Table.from_pandas(frame().drop(columns=list(columns), errors="ignore"))
    for name, (values, kind) in columns.items():
        made = made.append_column(name, pa.array(values, type=kind))
    pq.write_table(made, tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(1)])
def test_text_that_is_written_as_bytes(tmp_path, kind):
    pid, sex = ([b"7", b"7", b"9", b"8"], kind), ([b"F", b"F", None, b"M"], kind)
    data = read(options(patient_id="pid"), parquet(tmp_path, pid=pid, sex=sex))
    assert data.patients.tolist() == [0, 0, 1, 2]
    assert data.attributes[0].levels == ("F", "M", "missing")


def test_bytes_and_lists_are_not_categories(tmp_path):
    odd = [b"\xff", b"\xfe", b"\xff", b"\xfd"]
    table = parquet(tmp_path, pid=(odd, pa.binary()))
    assert read(options(patient_id="pid"), table).num_patients == 3
    text = refusal(parquet(tmp_path, sex=(odd, pa.binary())))
    assert "attribute 'sex' must be UTF-8 text; got other bytes" in text
    lists = ([[1], [2], [3], [1]], pa.list_(pa.int64()))
    text = refusal(parquet(tmp_path, pid=lists), patient_id="pid")
    assert "patient id 'pid' must be identifiers; got list" in text
    assert "must be categories; got list" in refusal(parquet(tmp_path, sex=lists))


def test_an_identifier_is_text_in_a_file(tmp_path):
    text = "pid,died,risk,sex\n7,0,.1,F\n07,1,.2,F\n7,0,.3,M\n"
    assert read(options(patient_id="pid"), save(tmp_path, text)).num_patients == 2


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"risk": [0.5] * 4}, "constant_score"),
        ({"risk": [0, 1, 1, 0]}, "binary_score"),
        ({"sex": list("FFFF")}, "single_group"),
        ({"sex": list("FMFM")}, "one_class_groups"),
        ({"sex": ["F", "f ", "M", "M"]}, "similar_levels"),
        ({"risk": [0.1, 0.2, 0.3, 0.4]}, "one_sided_decisions"),
    ],
)
def test_findings_of_small_tables(changes, code):
    assert by_code_any(read(options(), frame(**changes)), code)
    assert code not in codes(read(options(), frame()))


def by_code_any(data, code):
    return [f for f in data.findings if f.code == code and f.severity == "warning"]


def test_findings_of_large_tables():
    n = 1000
    table = pd.DataFrame(
        {
            "died": (np.arange(n) < 5).astype(int),
            "risk": np.arange(n) / n,
            "sex": np.where(np.arange(n) % 2, "F", "M"),
        }
    )
    data = read(options(), table)
    assert by_code(data, "extreme_prevalence").rows == 5
    assert "duplicate_rows" not in codes(data)
    repeated = pd.concat([table, table.iloc[:7]])
    assert by_code(read(options(), repeated), "duplicate_rows").rows == 7
    # Coarse scores make rows alike that are of different patients.
    repeated["risk"] = np.round(repeated["risk"], 1)
    assert "duplicate_rows" not in codes(read(options(), repeated))
    repeated["pid"] = [*range(n), *range(7)]
    data = read(options(patient_id="pid"), repeated)
    assert by_code(data, "duplicate_rows").rows == 7
    table["new"] = table["risk"]
    assert "identical_models" in codes(read(options(scores=["risk", "new"]), table))


def test_findings_do_not_tell_of_small_groups():
    table = frame(pid=[1, 1, 2, 2], sex=["F", None, "M", "M"])
    data = read(options(patient_id="pid", suppress_below=11), table)
    for code, words in (
        ("missing_attribute", "sex is missing in some of 4 rows"),
        ("inconsistent_attribute", "Some of 2 patients"),
    ):
        assert by_code(data, code).rows is None
        assert words in by_code(data, code).message
    for found in by_code_any(data, "one_class_groups"):
        assert found.rows is None
        assert "no rows with the outcome: suppressed" in found.message or (
            "no rows without the outcome: suppressed" in found.message
        )


def test_levels_that_rules_name_must_exist():
    text = refusal(frame(), fail_on="true_positive_rate(sex=f) < 0.5")
    assert "names 'f', which is not a category of 'sex'; did you mean 'F'?" in text
    data = read(options(fail_on="true_positive_rate(sex=F) < .5"), frame())
    assert data.attributes[0].levels == ("F", "M")


@pytest.mark.parametrize(
    ("values", "bins", "words"),
    [
        (["x", "2", "3", "4"], [2], "attribute 'age' is not a number in 1 of 4 rows"),
        ([1, np.inf, 2, 3], [2], "attribute 'age' is infinite in 1 of 4 rows"),
        ([5.0] * 4, 4, "all its values are 5"),
        ([None] * 4, 4, "is missing in all 4 rows"),
    ],
)
def test_numbers_that_cannot_be_cut(values, bins, words):
    table = frame(age=values)
    assert words in refusal(table, attributes="age", bins={"age": bins})


def test_quantiles_are_those_of_the_audited_rows():
    rows = 40
    table = pd.DataFrame(
        {
            "died": np.arange(rows) % 2,
            "risk": np.arange(rows) / rows,
            "age": np.r_[np.arange(20), 1000 + np.arange(20)],
            "split": np.repeat(["test", "val"], 20),
        }
    )
    asked = {"attributes": "age", "bins": {"age": 2}, "thresholds": ()}
    chosen = {"validation": ("split", "val"), "threshold_rule": "youden"}
    data = read(options(**asked, **chosen), table)
    assert data.attributes[0].levels == ("under 10", "10 and over")
    table["risk"] = table["risk"].where(table["split"] == "test")
    data = read(options(**asked, missing_scores="drop"), table)
    assert data.attributes[0].levels == ("under 10", "10 and over")


def test_equal_values_make_fewer_quantiles():
    table = frame(age=[1, 1, 1, 9])
    data = read(options(attributes="age", bins={"age": 4}), table)
    assert data.attributes[0].levels == ("under 9", "9 and over")
    assert by_code(data, "fewer_quantiles").severity == "info"


def test_warnings_come_first():
    data = read(options(thresholds=()), frame(sex=["F", None, "=M", "F"]))
    severities = [f.severity for f in data.findings]
    assert severities == sorted(severities, reverse=True)
    assert set(severities) == {"warning", "info"}


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.integers(1, 3))
def test_the_order_of_rows_does_not_matter(seed, models):
    rng = np.random.default_rng(seed)
    n = 30
    table = pd.DataFrame({"died": np.arange(n) % 2, "sex": rng.choice([*"ab"], n)})
    names = [f"m{i}" for i in range(models)]
    table[names] = rng.random((n, models)).round(1)
    table["pid"] = rng.integers(0, 9, n)
    order = rng.permutation(n)
    asked = options(scores=names, patient_id="pid")
    one, other = read(asked, table), read(asked, table.iloc[order])
    assert one.labels[order].tolist() == other.labels.tolist()
    assert one.attributes[0].levels == other.attributes[0].levels
    np.testing.assert_array_equal(
        one.attributes[0].codes[order], other.attributes[0].codes
    )
    # Who shares a patient stays the same, whatever the patients' numbers.
    a, b = one.patients[order], other.patients
    assert np.array_equal(a[:, None] == a, b[:, None] == b)
    assert one.findings == other.findings


@pytest.mark.parametrize(
    ("made", "levels"),
    [
        (
            lambda: pd.cut(pd.Series([17, 40, 39, 66]), [0, 18, 40, 65, 100]),
            ("(0, 18]", "(18, 40]", "(40, 65]", "(65, 100]"),
        ),
        (
            lambda: pd.Categorical(pd.PeriodIndex(["2020", "2021"] * 2, freq="Y")),
            ("2020", "2021"),
        ),
        (
            lambda: pd.Series(pd.PeriodIndex(["2020", "2021"] * 2, freq="Y")),
            ("2020", "2021"),
        ),
    ],
    ids=["cut", "categories of periods", "periods"],
)
def test_types_that_arrow_lacks_are_levels(made, levels):
    data = read(options(attributes="kind"), frame(kind=made()))
    assert data.attributes[0].levels == levels
    assert np.bincount(data.attributes[0].codes, minlength=len(levels)).sum() == 4
    expected = pd.Series(made()).astype(str).tolist()
    found = [levels[code] for code in data.attributes[0].codes]
    assert found == expected


def test_an_outcome_may_declare_values_that_no_row_has():
    died = pd.Categorical([0, 1, 0, 1], categories=[0, 1, 2])
    data = read(options(), frame(died=died))
    assert data.labels.tolist() == [0, 1, 0, 1]


def test_what_is_no_table_is_refused():
    assert "; got Table" in refusal(pa.table({"died": [0, 1]}))
    assert refusal(pd.DataFrame()).endswith("(0 columns) has no column 'died'")


def test_a_column_that_is_not_there_is_named_with_the_tables_size(tmp_path):
    path = save(tmp_path, CSV)
    assert "(4 rows, 6 columns) has no column" in refusal(path, attributes="race")


def test_distinct_rows_of_mixed_types_and_missing_values():
    """Rows 0 and 1, and rows 2, 3 and 5 are equal; −0 equals 0, and 1 equals 1.0."""
    nan = np.nan
    scores = np.array([nan, nan, 0.0, -0.0, 1.0, 0.0], np.float32)
    wide = np.array([0.1, 0.1, nan, nan, 0.1, nan])
    labels = np.array([1, 1, 0, 0, 1, 0], np.int8)
    groups = np.array([2, 2, -1, -1, 2, -1])
    assert _quality._distinct([scores, wide, labels, groups]) == 3
    assert _quality._distinct([wide]) == 2
    assert _quality._distinct([np.array([1, 2, 1], object), np.zeros(3, bool)]) == 2
