"""Batches come in order, ready and on time; failures and ends leave no thread."""

import gc
import subprocess
import sys
import threading
import time
import traceback

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given
from jax.sharding import NamedSharding, PartitionSpec

from fairjax.data import prefetch as module
from fairjax.data.prefetch import prefetch


def threads():
    return [t for t in threading.enumerate() if t.name == "fairjax-prefetch"]


def all_ended():
    """Also those whose loop nobody holds; to collect garbage takes a second."""
    if threads():
        gc.collect()
    return not threads()


@pytest.fixture(autouse=True)
def no_thread_is_left():
    assert not threads()
    yield
    assert all_ended()


class Counting:
    """Batches 0, 1, 2, ..., and how many were taken."""

    def __init__(self, number=10**9):
        self.taken = 0
        self.number = number

    def __iter__(self):
        while self.taken < self.number:
            self.taken += 1
            yield {"x": np.full(2, self.taken - 1)}


def wait_until(true):
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        time.sleep(0.001)
    assert true()


@given(st.integers(0, 12), st.integers(1, 5))
def test_all_batches_come_in_order_on_the_device(number, size):
    batches = list(prefetch(Counting(number), size))
    assert [int(batch["x"][0]) for batch in batches] == list(range(number))
    assert all(isinstance(batch["x"], jax.Array) for batch in batches)


def test_batches_wait_up_to_the_size():
    loader = Counting()
    with prefetch(loader, size=3) as batches:
        # Three wait, and one is made that has no room yet.
        wait_until(lambda: loader.taken == 4)
        time.sleep(0.02)
        assert loader.taken == 4
        next(batches)
        wait_until(lambda: loader.taken == 5)
    assert next(batches, None) is None


def test_the_loader_works_while_the_step_does():
    """The loader makes its second batch while the first is worked on."""
    made = threading.Event()

    def loader():
        yield np.zeros(1)
        made.set()
        yield np.ones(1)

    batches = prefetch(loader())
    next(batches)
    assert made.wait(10)
    assert next(batches)[0] == 1
    assert next(batches, None) is None


def test_a_failure_comes_in_its_place_with_its_traceback():
    def loader():
        yield np.zeros(1)
        yield np.ones(1)
        raise_from_the_loader()

    def raise_from_the_loader():
        raise KeyError("scan 17 is missing")

    batches = prefetch(loader())
    assert [int(next(batches)[0]) for _ in range(2)] == [0, 1]
    with pytest.raises(KeyError, match="scan 17 is missing") as caught:
        next(batches)
    assert "raise_from_the_loader" in "".join(traceback.format_tb(caught.tb))
    assert next(batches, None) is None


def test_what_no_device_takes_is_a_failure():
    with pytest.raises(TypeError, match="not a valid JAX"):
        next(prefetch([{"note": "text"}]))


def test_a_loop_that_breaks_ends_the_thread():
    for batch in prefetch(Counting(), size=1):
        if batch["x"][0] == 3:
            break
    assert all_ended()


def test_closing_ends_the_thread_wherever_it_is():
    for size in (1, 2, 5):
        for taken in range(4):
            batches = prefetch(Counting(6), size)
            for _ in range(taken):
                next(batches)
            batches.close()
            assert not threads()


@pytest.mark.slow
def test_a_program_ends_with_batches_left():
    program = """
import itertools
import numpy as np
from fairjax.data.prefetch import prefetch
batches = prefetch({"x": np.zeros(9)} for _ in itertools.count())
print(next(batches)["x"].shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("(9,)\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("end", ["", "raise KeyError('a step failed')"])
def test_a_program_ends_whose_loader_blocks(end):
    program = f"""
import threading
import numpy as np
from fairjax.data.prefetch import prefetch
def loader():
    yield np.zeros(9)
    threading.Event().wait()
batches = prefetch(loader())
print(next(batches).shape)
{end}
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "(9,)\n"
    assert done.returncode == (1 if end else 0)


def test_a_loader_that_blocks_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    go_on = threading.Event()

    def loader():
        yield np.zeros(1)
        go_on.wait(60)
        yield np.ones(1)

    batches = prefetch(loader())
    next(batches)
    batches.close()
    assert len(threads()) == 1
    assert next(batches, None) is None
    go_on.set()
    wait_until(all_ended)


@pytest.mark.parametrize("end", ["the last batch", "closing"])
def test_several_consumers_all_end(end):
    go_on = threading.Event()
    taken, ended = [], []

    def loader():
        yield np.zeros(1)
        go_on.wait(60)
        if end == "the last batch":
            yield np.ones(1)

    batches = prefetch(loader())

    def consume():
        taken.extend(int(batch[0]) for batch in batches)
        ended.append(1)

    consumers = [threading.Thread(target=consume, daemon=True) for _ in range(3)]
    for consumer in consumers:
        consumer.start()
    wait_until(lambda: taken == [0])
    if end == "closing":
        closing = threading.Thread(target=batches.close)
        closing.start()
    go_on.set()
    for consumer in consumers:
        consumer.join(10)
    assert len(ended) == 3
    assert sorted(taken) == ([0, 1] if end == "the last batch" else [0])
    if end == "closing":
        closing.join(10)


def test_a_loader_that_fails_after_the_end_is_not_heard():
    def loader():
        yield np.zeros(1)
        raise KeyError("nobody asks for this batch")

    batches = prefetch(loader(), size=1)
    next(batches)
    batches.close()


def test_batches_are_laid_over_devices():
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = NamedSharding(mesh, PartitionSpec("batch"))
    whole = NamedSharding(mesh, PartitionSpec())
    rows = np.arange(16.0).reshape(16, 1)
    batch = next(prefetch([{"x": rows, "w": rows}], 2, {"x": spread, "w": whole}))
    assert batch["x"].sharding == spread
    assert batch["x"].addressable_shards[0].data.shape == (2, 1)
    assert batch["w"].addressable_shards[0].data.shape == (16, 1)
    np.testing.assert_array_equal(batch["x"], rows)


def test_sizes_are_checked_at_once():
    with pytest.raises(ValueError, match="size must be at least 1; got 0"):
        prefetch([], size=0)
