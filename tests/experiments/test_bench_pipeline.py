"""The benchmark of the pipeline loads every way, and writes what it took."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments.bench import pipeline as bench
from experiments.bench import timing
from fairjax.data import buckets


@pytest.fixture(autouse=True)
def progress_bars():
    yield
    tfds.enable_progress_bar()


@pytest.mark.slow
def test_every_way_of_loading_is_measured_and_written(tmp_path, monkeypatch):
    document = tmp_path / "performance.md"
    name = f"pipeline-{jax.default_backend()}"
    before, after = (mark.format(name) for mark in (timing.BEGIN, timing.END))
    document.write_text(f"{before}\nold\n{after}\n", encoding="utf-8")
    monkeypatch.setattr(timing, "DOCUMENT", document)

    @jax.jit
    def step(state, batch):
        read = sum(value.sum() for value in batch.values())
        return state + read, {}

    make_step = bench.make_step

    def make(options):
        """The model's own step is traced; compiling it for each length takes longer."""
        own, first = make_step(options)

        def traced(state, batch):
            jax.eval_shape(own, first, batch)
            return step(state, batch)

        return traced, jnp.zeros(())

    monkeypatch.setattr(bench, "make_step", make)
    rows = bench.main(bench.Options(output=tmp_path, docs=True, quick=True))
    assert [(row.ahead, row.lengths) for row in rows] == [
        (False, 1),
        (False, 4),
        (True, 1),
        (True, 4),
    ]
    for row in rows:
        assert row.examples == 48
        assert 0 < row.waited[0] < row.wall[0]
    one, several = rows[0], rows[1]
    assert several.padding < 0.5 * one.padding
    assert one.steps == 2
    assert (rows[2].padding, rows[2].steps) == (one.padding, one.steps)
    saved = json.loads((tmp_path / f"{name}.json").read_text())["rows"]
    assert [row["wall"] for row in saved] == [row.wall for row in rows]
    text = document.read_text(encoding="utf-8")
    assert "old" not in text
    for row in rows:
        assert f"| {' | '.join(row.cells())} |" in text


def test_a_row_by_hand():
    row = bench.Row(True, 3, 0.25, 100, 5, [2.0, 1.0, 4.0], [0.5, 0.25, 9.0])
    assert row.cells() == ["ahead", "3", "25", "50", "400.0", "100.0", "25.0"]


def test_batches_hold_what_their_rows_do():
    def record(subject):
        note = " ".join(["so"] * subject).encode()
        image = np.full((4, 4, 1), subject, np.uint8)
        return {"image": image, "note": note, "label": subject % 2}

    source = [record(subject) for subject in range(5)]
    rows, mask = np.array([3, 1]), np.array([True, False])
    options = bench.Options(image_size=2)
    (batch,) = bench.load(source, options, [buckets.BucketBatch(rows, mask, 4)])
    assert batch["image"].shape == (2, 2, 2, 1)
    np.testing.assert_array_equal(batch["own"].sum(axis=1), rows)
    np.testing.assert_array_equal(batch["label"], [1, 1])
    np.testing.assert_array_equal(batch["counts"], mask)
    assert len({*batch["words"][batch["own"]]}) == 1


@pytest.mark.slow
def test_filled_up_rows_do_not_count():
    options = bench.Options(image_size=8, width=4)
    step, state = bench.make_step(options)
    batch = {
        "image": np.ones((2, 8, 8, 1), np.float32),
        "words": np.array([[1, 2], [3, 0]], np.int32),
        "own": np.array([[True, True], [True, False]]),
        "label": np.array([1, 0], np.int32),
        "counts": np.array([True, False]),
    }
    other = {**batch, "words": np.array([[1, 2], [9, 9]], np.int32)}
    params, changed = (step(state, data)[0] for data in (batch, other))
    jax.tree.map(np.testing.assert_array_equal, params, changed)


def test_options_are_checked(tmp_path):
    with pytest.raises(ValueError, match="must be 1 or more"):
        bench.main(bench.Options(runs=0, output=tmp_path))
    with pytest.raises(ValueError, match="--subjects must be 10 or more"):
        bench.main(bench.Options(subjects=5, output=tmp_path))
