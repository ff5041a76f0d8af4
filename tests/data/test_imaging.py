"""FairVision and FairVLMed: every value as in the files, every bad file named."""

import dataclasses
import importlib.util
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given

from fairjax.data import (
    Coding,
    FairVision,
    FairVisionConfig,
    FairVLMed,
    FairVLMedConfig,
    coding,
    decode,
)
from fairjax.data._archives import split_files

_FILE = Path(__file__).with_name("archives.py")
_SPEC = importlib.util.spec_from_file_location("archives", _FILE)
archives = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(archives)

FAIRVISION = FairVision.BUILDER_CONFIGS[0]
FAIRVLMED = FairVLMed.BUILDER_CONFIGS[0]


@pytest.fixture(autouse=True)
def offline_and_quiet(monkeypatch):
    def refuse(*_):
        raise AssertionError("A connection is made.")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    tfds.disable_progress_bar()
    yield
    tfds.enable_progress_bar()


def named(config, **changes):
    return dataclasses.replace(config, name="own", **changes)


def prepare(make, folder, manual, config=None):
    builder = make(config=config, data_dir=folder / "prepared")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=manual)
    )
    return builder


def test_hidden_files_are_not_read(tmp_path):
    """Such as those that macOS puts beside each file, or a notebook into a folder."""
    folder = archives.write(tmp_path, archives.fairvlmed)
    (folder / "Training" / "._data_00000.npz").write_bytes(b"Mac OS X")
    (folder / ".checkpoints").mkdir()
    (folder / ".checkpoints" / "data_00000.npz").write_bytes(b"")
    files = split_files(folder)
    assert [len(found) for found in files.values()] == [4, 2, 3]


def records(builder):
    """Every split's records by subject."""
    splits = builder.as_data_source()
    return {
        name: {int(r["id"][-5:]): r for r in source} for name, source in splits.items()
    }


def vision(folder, arrays=archives.fairvision, splits=archives.SPLITS, disease="AMD"):
    archives.write(folder / "raw" / disease, arrays, splits)
    return folder / "raw"


def changed(arrays, **changes):
    """Arrays with some changed; without those that are None."""

    def change(subject):
        new = arrays(subject) | changes
        return {key: value for key, value in new.items() if value is not None}

    return change


@pytest.fixture(scope="module")
def fairvision(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fairvision")
    return prepare(FairVision, folder, vision(folder, disease="Glaucoma"))


@pytest.fixture(scope="module")
def fairvlmed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fairvlmed")
    return prepare(FairVLMed, folder, archives.write(folder / "r", archives.fairvlmed))


def test_fairvision_has_every_value(fairvision):
    found = records(fairvision)
    assert {name: sorted(of) for name, of in found.items()} == {
        "train": [0, 1, 2, 3],
        "validation": [4, 5],
        "test": [6, 7, 8],
    }
    features = fairvision.info.features
    for subject, record in (item for of in found.values() for item in of.items()):
        fundus, volume = archives.images(subject)
        np.testing.assert_array_equal(record["image"][..., 0], fundus)
        # The middles of ten equal parts of twelve slices.
        middles = [0, 1, 3, 4, 5, 6, 7, 9, 10, 11]
        for one, place in zip(record["volume"], middles, strict=True):
            np.testing.assert_array_equal(one[..., 0], volume[place])
        assert record["label"] == subject % 2
        assert record["age"] == 50.5 + subject
        assert record["present"] == {"image": True, "volume": True}
        levels = {
            name: features["attributes"][name].int2str(code)
            for name, code in record["attributes"].items()
        }
        assert levels == {
            "sex": ("female", "male")[subject % 2],
            "race": ("Asian", "Black", "White")[subject % 3],
            "ethnicity": ("not recorded", "Hispanic", "non-Hispanic")[
                0 if subject == 0 else 2 - subject % 2
            ],
            "language": ("English", "Spanish", "other")[subject % 3],
            "marital_status": (
                "married or partnered",
                "single",
                "divorced",
                "widowed",
                "legally separated",
            )[subject % 5],
        }
    assert features["label"].names == ["no glaucoma", "glaucoma"]


def test_fairvlmed_has_every_value(fairvlmed):
    found = records(fairvlmed)
    assert [len(of) for of in found.values()] == [4, 2, 3]
    for subject, record in (item for of in found.values() for item in of.items()):
        np.testing.assert_array_equal(
            record["image"][..., 0], archives.images(subject)[0]
        )
        note = archives.fairvlmed(subject)["note"]
        assert decode(record, 4)["note"] == note
        assert record["present"] == {"image": True, "note": bool(note)}
        assert record["attributes"]["sex"] == subject % 2
    absent = {"image": 0, "note": 0}
    assert fairvlmed.info.metadata["absent"] == {
        "train": absent | {"note": 1},
        "validation": absent,
        "test": absent,
    }


def test_prepared_files_are_found_again(fairvision):
    again = FairVision(data_dir=fairvision.data_dir_root)
    assert again.info.metadata["absent"]["train"] == {"image": 0, "volume": 0}
    assert len(again.as_data_source("test")) == 3
    assert len(pickle.loads(pickle.dumps(again)).as_data_source("test")) == 3


@pytest.mark.parametrize(
    "names",
    [("train", "val", "test"), ("TRAINING", "validation", "Testing")],
    ids=lambda names: names[0],
)
def test_splits_are_spelt_in_several_ways(names, tmp_path):
    splits = dict.fromkeys(names, 1)
    manual = vision(tmp_path, splits=splits, disease="glaucoma")
    # What is no split's folder and holds no archive is left alone.
    (manual / "glaucoma" / "figures").mkdir()
    found = records(prepare(FairVision, tmp_path, manual))
    assert {name: list(of) for name, of in found.items()} == {
        "train": [0],
        "validation": [1],
        "test": [2],
    }


@pytest.mark.parametrize(
    ("config", "key", "words", "codes"),
    [
        ("amd", "dr_subtype", ["early.dry", "wet.amd.inactive.scar"], [1, 3]),
        ("amd", "amd_condition", ["not.in.icd.table", "intermediate.dry"], [0, 2]),
        ("dr", "dr_subtype", ["moderate.npdr", "pdr"], [0, 1]),
    ],
)
def test_stages_are_read_as_published(config, key, words, codes, tmp_path):
    def arrays(subject):
        own = {"glaucoma": None, key: np.array(words[subject % 2])}
        return changed(archives.fairvision, **own)(subject)

    manual = vision(tmp_path, arrays, disease=config.upper())
    train = records(prepare(FairVision, tmp_path, manual, config))["train"]
    assert [train[i]["label"] for i in range(4)] == codes * 2


def test_a_table_has_what_the_files_lack(tmp_path):
    manual = vision(
        tmp_path, changed(archives.fairvision, age=None), disease="Glaucoma"
    )
    rows = [f"data_{subject:05d}.npz,{70 + subject}" for subject in range(9)]
    rows[2] = "data_00002.npz,"
    table = manual / "data_summary_glaucoma.csv"
    table.write_text("\n".join(["filename,age", *rows]))
    train = records(prepare(FairVision, tmp_path, manual))["train"]
    np.testing.assert_array_equal(
        [train[i]["age"] for i in range(4)], [70, 71, np.nan, 73]
    )


def test_summaries_come_from_the_table(tmp_path):
    manual = archives.write(tmp_path / "raw", archives.fairvlmed)
    rows = ["data_00000.npz,Glaucoma suspected.", 'data_00002.npz,"One, two"']
    table = manual / "data_summary.csv"
    table.write_text("\n".join(["filename,gpt4_summary", *rows]))
    builder = prepare(FairVLMed, tmp_path, manual, "summaries")
    train = records(builder)["train"]
    notes = [train[i]["note"].decode() for i in range(4)]
    assert notes == ["Glaucoma suspected.", "", "One, two", ""]
    assert [train[i]["present"]["note"] for i in range(4)] == [True, False] * 2
    absent = builder.info.metadata["absent"]
    assert [of["note"] for of in absent.values()] == [2, 2, 3]


def test_an_absent_modality_is_counted(tmp_path):
    def arrays(subject):
        found = archives.fairvision(subject)
        if subject == 1:
            found["oct_bscans"] = np.zeros((0,), np.uint8)
        if subject == 0:
            found["slo_fundus"] = np.zeros((0, 0), np.uint8)
        return found | {
            "slo_fundus": found["slo_fundus"].astype(float) * (subject != 2)
        }

    manual = vision(tmp_path, changed(arrays), disease="Glaucoma")
    builder = prepare(FairVision, tmp_path, manual)
    assert builder.info.metadata["absent"]["train"] == {"image": 1, "volume": 1}
    train = records(builder)["train"]
    assert train[1]["present"] == {"image": True, "volume": False}
    # Its arrays have the shape of the others', and are 0.
    decoded = [decode(train[i], 4) for i in range(4)]
    assert {record["volume"].shape for record in decoded} == {(10, 4, 4, 1)}
    assert not decoded[1]["volume"].any()
    assert not train[0]["present"]["image"]
    assert not decoded[0]["image"].any()
    # A grey fundus is there, but has nothing to standardise.
    assert train[2]["present"]["image"]
    assert not decoded[2]["image"].any()
    np.testing.assert_array_equal(
        train[3]["image"][..., 0], archives.images(3)[0], "floats of whole numbers"
    )


def test_settings_go_with_their_name(fairvision, tmp_path):
    three = named(FAIRVISION, num_slices=3, age_keys=(), attributes={})
    manual = vision(tmp_path, disease="Glaucoma")
    record = records(prepare(FairVision, tmp_path, manual, three))["train"][0]
    _, volume = archives.images(0)
    # The middles of three equal parts of twelve slices.
    middles = np.stack(record["volume"])[..., 0]
    np.testing.assert_array_equal(middles, volume[[2, 6, 10]])
    assert np.isnan(record["age"])
    assert "attributes" not in record or record["attributes"] == {}
    with pytest.raises(
        ValueError, match="must have the settings that prepared .*; got others"
    ):
        FairVision(config=named(three, num_slices=4), data_dir=tmp_path / "prepared")


def write_pickle(path):
    np.savez(path, slo_fundus=np.array([{"a": 1}], object))


def write_bare_pickle(path):
    path.write_bytes(pickle.dumps({"slo_fundus": 1}))


def write_single_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def cut(path):
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (write_pickle, "'slo_fundus' must be an array .*; got .*not unpickled"),
        (
            write_bare_pickle,
            "must be a .npz archive of arrays; got .*Pickles are not read",
        ),
        (write_single_array, "must be a .npz archive; got a single array"),
        (cut, "must be a .npz archive of arrays; got"),
    ],
)
def test_files_that_cannot_be_read(spoil, message, tmp_path):
    manual = vision(tmp_path, disease="Glaucoma")
    path = manual / "Glaucoma" / "Validation" / "data_00004.npz"
    spoil(path)
    with pytest.raises(ValueError, match=message) as caught:
        prepare(FairVision, tmp_path, manual)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"race": None}, "must have the key 'race'; got .*'oct_bscans', 'slo_fundus'"),
        ({"slo_fundus": None}, "must have the key 'slo_fundus'; got"),
        ({"glaucoma": None}, "must have the key 'glaucoma'; got"),
        ({"male": None}, "must have the key 'male' or 'gender' or 'sex'; got"),
        ({"age": None}, "must have the key 'age'; got"),
        (
            {"slo_fundus": np.ones((2, 2, 3), np.uint8)},
            r"must have 2 axes; got shape \(2, 2, 3\)",
        ),
        (
            {"oct_bscans": np.ones((2, 2), np.uint8)},
            r"must have 3 axes; got shape \(2, 2\)",
        ),
        (
            {"oct_bscans": np.ones((9, 2, 2), np.uint8)},
            "must have num_slices=10 slices or more; got 9",
        ),
        (
            {"slo_fundus": np.full((2, 2), 256)},
            "must hold grey values .*; got other int64",
        ),
        (
            {"slo_fundus": np.full((2, 2), np.nan)},
            "must hold grey values .*; got other float64",
        ),
        (
            {"slo_fundus": np.array([[0, 0.25], [1, 0.75]], np.float32)},
            "'slo_fundus' must hold integer .* float32 .*, from 0.0 to 1.0",
        ),
        (
            {"oct_bscans": np.full((12, 2, 2), 254.5)},
            "'oct_bscans' must hold integer .* float64 .*, from 254.5 to 254.5",
        ),
        ({"race": np.arange(2)}, "'race' must be one value; got shape \\(2,\\)"),
        ({"race": 7}, "'race': the value must be a code from 0 to 2, .*; got 7"),
        ({"race": 0.5}, "'race': the value must be a code .*; got 0.5"),
        ({"race": "Martian"}, "'race': the value must be .*'Asian'.*; got 'Martian'"),
        ({"age": -3}, "'age': an age must be years, 0 or more; got -3"),
        ({"age": "old"}, "'age': an age must be years, 0 or more; got 'old'"),
        ({"glaucoma": -1}, "must have a label; got 'not recorded'"),
    ],
)
def test_arrays_that_are_not_as_described(changes, message, tmp_path):
    arrays = changed(archives.fairvision, **changes)
    manual = vision(tmp_path, arrays, dict.fromkeys(archives.SPLITS, 1), "Glaucoma")
    with pytest.raises(ValueError, match=message) as caught:
        prepare(FairVision, tmp_path, manual)
    assert "data_00000.npz" in str(caught.value)
    assert not list((tmp_path / "prepared").rglob("*.array_record*"))


def test_folders_that_are_not_as_described(tmp_path):
    manual = vision(tmp_path, disease="Glaucoma")
    glaucoma = manual / "Glaucoma"

    def refuses(message, config=None):
        with pytest.raises(ValueError, match=message):
            prepare(FairVision, tmp_path, manual, config)

    refuses("must have a folder 'AMD'; got \\['Glaucoma'\\]", "amd")
    (glaucoma / "Holdout").mkdir()
    np.savez(glaucoma / "Holdout" / "data_1.npz", x=1)
    refuses("must be train or .*; got .*Holdout. Rename")
    (glaucoma / "Holdout").rename(manual / "Holdout")
    (glaucoma / "testing").mkdir()
    refuses("the test split must have one folder; got .*. Keep one")
    (glaucoma / "Test").rename(manual / "Test")
    refuses("testing must hold .npz files; got none")
    (glaucoma / "testing").rename(manual / "testing")
    refuses("must have the folders train or training, .*; got none for test")
    (manual / "Test").rename(glaucoma / "Test")
    twin = glaucoma / "Test" / "data_00003.npz"
    twin.write_bytes((glaucoma / "Training" / "data_00003.npz").read_bytes())
    refuses("must be in one split.*got 'data_00003' in .*Training.* and .*Test")


def test_notes_that_are_not_as_described(tmp_path):
    manual = archives.write(tmp_path / "raw", archives.fairvlmed)
    table = manual / "data_summary.csv"

    def refuses(message):
        with pytest.raises(ValueError, match=message):
            prepare(FairVLMed, tmp_path, manual, "summaries")

    refuses("data_summary.csv must hold rows with the notes; got none")
    table.write_text("file,note\ndata_00000.npz,a\n")
    refuses("must have a column 'filename'; got \\['file', 'note'\\]")
    table.write_text("filename,text\ndata_00000.npz,a\n")
    refuses("must have a column 'gpt4_summary' or 'note'; got")
    table.write_text("filename,note\nscan_1.npz,a\n")
    refuses("must name the subjects' files; got names such as 'scan_1'")
    table.write_text("filename,note\ndata_00000.npz,a\ndata_00000.npz,b\n")
    refuses("must have one row per file; got two of 'data_00000'")
    without = changed(archives.fairvlmed, note=None)
    manual = archives.write(tmp_path / "other", without)
    with pytest.raises(ValueError, match="must have the key 'note'; got"):
        prepare(FairVLMed, tmp_path, manual)


def test_parquet_is_refused(tmp_path):
    manual = archives.write(tmp_path / "raw", archives.fairvlmed)
    builder = FairVLMed(data_dir=tmp_path, file_format="parquet")
    config = tfds.download.DownloadConfig(manual_dir=manual)
    with pytest.raises(ValueError, match="must be 'array_record'; got 'parquet'"):
        builder.download_and_prepare(download_config=config)


@given(
    st.sampled_from([0, 1, 2]),
    st.sampled_from(["{}", "{}.0", " {} ", "name", "NAME", "int", "float", "bytes"]),
)
def test_a_level_has_several_spellings(code, form):
    race = Coding(("race",), ("Asian", "Black", "White"))
    name = race.levels[code]
    value = {
        "name": name,
        "NAME": f" {name.upper()} ",
        "int": np.int32(code),
        "float": np.float32(code),
        "bytes": name.encode(),
    }.get(form, form.format(code))
    assert race.level(value) == name


@pytest.mark.parametrize(
    "value", [-1, -1.0, np.nan, "", "NaN", "Unknown", b"-1", "-1.0"]
)
def test_what_is_not_recorded(value):
    assert coding.Coding(("a",), ("x",)).level(value) == "not recorded"
    assert np.isnan(coding.age(value))


@pytest.mark.parametrize(
    "arguments",
    [
        ((), ("x",)),
        (("a",), ()),
        (("a",), ("x", "X")),
        (("a",), ("x", "not recorded")),
        (("a",), ("x",), {"y": 1}),
    ],
)
def test_codings_that_cannot_be_read_back(arguments):
    with pytest.raises(ValueError, match="levels.*; got"):
        Coding(*arguments)


@pytest.mark.parametrize("size", [3, 7, 20])
def test_decoding_is_jaxs_resizing_standardised(fairvision, size):
    record = fairvision.as_data_source("test")[0]
    decoded = decode(record, size)

    def expected(image):
        plane = np.asarray(image, np.float32)[..., 0]
        resized = jax.image.resize(plane, (size, size), "linear", antialias=True)
        resized = np.asarray(resized, np.float64)
        return ((resized - resized.mean()) / resized.std())[..., None]

    np.testing.assert_allclose(decoded["image"], expected(record["image"]), atol=1e-4)
    for mine, raw in zip(decoded["volume"], record["volume"], strict=True):
        np.testing.assert_allclose(mine, expected(raw), atol=1e-4)
        np.testing.assert_allclose([mine.mean(), mine.std()], [0, 1], atol=1e-5)
    kinds = jax.tree.map(lambda leaf: str(np.asarray(leaf).dtype), decoded)
    assert kinds["image"] == kinds["volume"] == kinds["age"] == "float32"
    assert {kinds["label"], *kinds["attributes"].values()} == {"int32"}


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, "image_size must be at least 1; got 0"),
        (2.5, "image_size must be a static Python int, .*; got 2.5"),
        ("8", "image_size must be a static Python int, .*; got '8'"),
        (True, "image_size must be a static Python int, .*; got True"),
    ],
)
def test_sizes_that_no_image_has(size, message, untyped):
    with pytest.raises(ValueError, match=message):
        decode({"image": np.zeros((4, 4, 1), np.uint8)}, size)


@pytest.mark.slow
def test_without_the_extra_it_says_what_to_install():
    program = """
import sys
sys.modules["tensorflow_datasets"] = None
import fairjax
import fairjax.data
from fairjax.data import Coding, buckets, prefetch
for module, name in {
    "tensorflow_datasets": "FairVision", "absent": "FairVLMed", "PIL": "decode"
}.items():
    sys.modules[module] = None
    try:
        getattr(fairjax.data, name)
    except ModuleNotFoundError as error:
        print(error.name, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all("pip install 'fairjax[data]'" in line for line in lines)
    missing = [line.split()[0] for line in lines]
    assert missing == ["tensorflow_datasets", "tensorflow_datasets", "PIL"]


def test_configs_are_named_and_typed():
    assert [type(c) for c in FairVision.BUILDER_CONFIGS] == [FairVisionConfig] * 3
    assert [type(c) for c in FairVLMed.BUILDER_CONFIGS] == [FairVLMedConfig] * 2
    assert [c.name for c in FairVision.BUILDER_CONFIGS] == ["glaucoma", "amd", "dr"]
    with pytest.raises(AttributeError, match="no attribute 'FairFace'"):
        importlib.import_module("fairjax.data").__getattr__("FairFace")
