"""Checkpoints: what comes back, what is refused, and a run killed while it saves."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from fairjax.checkpoint import Checkpoints
from tests import training_worker

TREE = {
    "params": {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.array(0.1, jnp.bfloat16)},
    "state": (jnp.array(3), [jnp.array([True, False])], ()),
    "typed": jax.random.key(3),
    "raw": jax.random.PRNGKey(4),
}


def zeros_like(tree):
    def zero(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        return jnp.zeros_like(leaf)

    return jax.tree.map(zero, tree)


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    leaves = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for a, b in leaves:
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def save(folder, *steps, tree=TREE):
    with Checkpoints(folder) as checkpoints:
        for step in steps:
            checkpoints.save(step, tree)


def restore(folder, like=TREE):
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore(zeros_like(like))


def test_the_same_bits_come_back(folder):
    save(folder, 7)
    step, tree = restore(folder)
    assert step == 7
    assert_same(tree, TREE)


def test_nothing_there(folder):
    assert restore(folder) is None


def test_the_latest_are_kept(folder):
    with Checkpoints(folder, keep=2) as checkpoints:
        for step in (1, 5, 20):
            checkpoints.save(step, {"w": jnp.full(2, float(step))})
        assert {path.name for path in folder.iterdir()} == {"5", "20"}
        step, tree = checkpoints.restore({"w": jnp.zeros(2)})
    assert step == 20
    np.testing.assert_array_equal(tree["w"], [20, 20])


def test_sharded_arrays_come_back_sharded(folder):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, P("data"))
    tree = {"w": jax.device_put(jnp.arange(8.0), sharding)}
    save(folder, 1, tree=tree)
    with Checkpoints(folder) as checkpoints:
        like = {"w": jax.device_put(jnp.zeros(8), sharding)}
        _, found = checkpoints.restore(like)
        _, single = checkpoints.restore({"w": jnp.zeros(8)})
    assert found["w"].sharding.is_equivalent_to(sharding, 1)
    assert len(single["w"].sharding.device_set) == 1
    np.testing.assert_array_equal(found["w"], np.arange(8))
    np.testing.assert_array_equal(single["w"], np.arange(8))

    # What was on no mesh may go to one.
    both = jax.jit(jnp.add)(single["w"], found["w"])
    np.testing.assert_array_equal(both, 2 * np.arange(8))


def test_what_could_not_be_restored_is_refused(folder):
    with pytest.raises(ValueError, match="must differ when their parts are joined"):
        save(folder, 1, tree={"a/b": jnp.ones(2), "a": {"b": jnp.zeros(2)}})
    with pytest.raises(ValueError, match="must not be empty; got w"):
        save(folder, 1, tree={"w": jnp.zeros((0, 2))})


@pytest.mark.parametrize("step", [2, 3])
def test_a_step_that_is_not_new_is_refused(folder, step):
    save(folder, 3)
    with pytest.raises(ValueError, match=f"step {step} is not after step 3"):
        save(folder, step)


def test_an_unfinished_checkpoint_is_passed_over(folder):
    save(folder, 1)
    left = folder / "2.orbax-checkpoint-tmp"
    shutil.copytree(folder / "1", left)
    (left / "commit_success.txt").unlink(missing_ok=True)
    step, tree = restore(folder)
    assert step == 1
    assert_same(tree, TREE)
    save(folder, 2)
    assert restore(folder)[0] == 2


def data_files(folder):
    return sorted(path for path in (folder / "default" / "d").iterdir())


@pytest.mark.parametrize("how", ["truncated", "flipped", "deleted"])
def test_a_damaged_checkpoint_is_named(folder, how):
    # One array: of several, Orbax leaves the reads after the first failure behind.
    tree = {"w": jnp.arange(1000.0)}
    save(folder, 1, 2, tree=tree)
    for path in data_files(folder / "2"):
        content = path.read_bytes()
        middle = len(content) // 2
        if how == "truncated":
            path.write_bytes(content[:middle])
        elif how == "flipped":
            flipped = bytes([content[middle] ^ 255])
            path.write_bytes(content[:middle] + flipped + content[middle + 1 :])
        else:
            path.unlink()
    with pytest.raises(ValueError, match="cannot be read: it is damaged") as error:
        restore(folder, tree)
    assert str(folder / "2") in str(error.value)
    # The remedy that the message names.
    shutil.rmtree(folder / "2")
    step, found = restore(folder, tree)
    assert step == 1
    assert_same(found, tree)


@pytest.mark.parametrize(
    ("like", "difference"),
    [
        ({"w": jnp.zeros(4)}, r"its 'w' has the shape \(3,\), not \(4,\)"),
        ({"v": jnp.zeros(3)}, "it has no 'v'"),
        ({"w": jnp.zeros(3), "x": jnp.zeros(3)}, "it has no 'x'"),
        ({}, "it also has 'w'"),
        ({"w": jnp.zeros(3, int)}, "its 'w' is float32, not int"),
    ],
    ids=["shape", "name", "more", "fewer", "kind"],
)
def test_another_configuration_is_refused(folder, like, difference):
    save(folder, 1, tree={"w": jnp.zeros(3)})
    with pytest.raises(ValueError, match=f"another configuration: {difference}"):
        restore(folder, like)


def test_a_width_may_change(folder):
    save(folder, 1, tree={"w": jnp.arange(3.0)})
    _, found = restore(folder, {"w": jnp.zeros(3, jnp.bfloat16)})
    assert_same(found, {"w": jnp.arange(3, dtype=jnp.bfloat16)})


@pytest.mark.slow
def test_a_run_killed_while_it_saves_ends_in_the_same_bits(tmp_path):
    folder, output = tmp_path / "killed", tmp_path / "killed.bin"
    path = Path(__file__).with_name("training_worker.py")
    # Before the first checkpoint gets its name; while the second is written; while
    # the first is deleted, once the third is there.
    kills = ("os.rename", "2", "open", "14", "shutil.rmtree", "2")
    done = subprocess.run(
        [sys.executable, str(path), str(folder), str(output), *kills],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(path.parents[1]),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    expected = [f"{-signal.SIGKILL} {reached}" for reached in (0, 1, 3)]
    assert done.stdout.splitlines() == expected, done.stderr
    assert not output.exists()
    whole = tmp_path / "whole.bin"
    # Here rather than in processes of their own, which would import and compile again.
    training_worker.main(str(folder), str(output))
    training_worker.main(str(tmp_path / "whole"), str(whole))
    assert output.read_bytes() == whole.read_bytes()
    assert len(output.read_bytes()) > 100
