"""Grids trained side by side: by hand, alone, resumed, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fairjax
from fairjax import sweep, training

OBJECTIVE = fairjax.stack_objectives(
    {"task": lambda w, batch: jnp.sum((w - batch["x"]) ** 2)}
)


def make_step(setting):
    tx = optax.chain(fairjax.pcgrad(num_objectives=1), optax.sgd(setting["rate"]))
    return tx, training.make_train_step(OBJECTIVE, tx)


def begin(key):
    return jax.random.normal(key)


def sample(key, data):
    return {"x": data + jax.random.normal(key)}


def train(rates=(0.25, 0.5), **options):
    given = {"num_seeds": 3, "num_steps": 4, "steps_per_call": 2, "key": 0, **options}
    settings = sweep.grid(rate=list(rates))
    return sweep.train(
        begin, make_step, sample, jnp.array(2.0), settings=settings, **given
    )


@pytest.fixture(scope="module")
def trained():
    return train()


def test_a_run_is_what_it_is_alone(trained):
    """w ← w − 2 rate (w − x), with the batches of its seed."""
    first, batches = jax.random.split(jax.random.key(0))
    values = trained.history["values"]
    assert values.shape == (2, 4, 3, 1)
    assert trained.history["finite"].all()
    for setting, rate in enumerate((0.25, 0.5)):
        for seed in range(3):
            w = float(begin(jax.random.split(first, 3)[seed]))
            key = jax.random.split(batches, 3)[seed]
            for step in range(4):
                key, draw = jax.random.split(key)
                x = float(sample(draw, 2.0)["x"])
                told = values[setting, step, seed, 0]
                assert told == pytest.approx((w - x) ** 2, rel=1e-4, abs=1e-6)
                w -= 2 * rate * (w - x)
            assert trained.runs.best.params[setting, seed] == pytest.approx(w, rel=1e-4)


def test_checkpoints_end_in_the_same_bits(tmp_path):
    """Killed after the second of three calls; the third call alone is done again."""

    def loop(run):
        calls.append(None)
        return run * 1.1, {"run": run[:, None]}

    options = {"folder": tmp_path, "seconds_between_checkpoints": 0}
    advanced, calls = [], []

    def advance():
        advanced.append(None)
        if len(advanced) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.run_calls(loop, jnp.ones(2), 4, advance=advance, **options)
    calls.clear()
    resumed, history = sweep.run_calls(loop, jnp.ones(2), 4, **options)
    # Traced once for the shapes, and called for the third and the fourth.
    assert len(calls) == 3
    whole, expected = sweep.run_calls(loop, jnp.ones(2), 4)
    np.testing.assert_array_equal(resumed, whole)
    np.testing.assert_array_equal(history["run"], expected["run"])
    assert history["run"].shape == (2, 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_seeds": 0}, "num_seeds must be 1 or more; got 0"),
        ({"num_steps": 5}, "a multiple of steps_per_call, 2; got 5"),
        ({"rates": ()}, r"got none for rate\."),
    ],
)
def test_what_cannot_be_trained(options, words):
    with pytest.raises(ValueError, match=words):
        train(**options)


def test_settings_have_one_length():
    rows = {"a": jnp.ones(2), "b": jnp.ones(3)}
    for settings, words in ((rows, r"got a \(2,\), b \(3,\)"), ({}, "got none")):
        with pytest.raises(ValueError, match=words):
            sweep.train(
                begin, make_step, sample, (), settings=settings, num_seeds=1,
                num_steps=1, steps_per_call=1, key=0,
            )  # fmt: skip


def test_lanes_lie_on_as_many_devices_as_divide_them():
    devices = jax.device_count()
    sizes = {1: 1, devices: devices, 2 * devices: devices}
    assert {n: sweep.lane_mesh(n).shape["lane"] for n in sizes} == sizes
