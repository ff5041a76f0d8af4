"""Every strategy gives the same Jacobian wherever it runs; auto's choice; errors."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import (
    AbstractDevice,
    AbstractMesh,
    AxisType,
    NamedSharding,
    PartitionSpec,
)

import fairjax
from fairjax import losses
from fairjax.jacobian import explain

GENERAL = ["jacrev", "pulls", "map"]
ALL = [*GENERAL, "cells", "auto"]
DEVICES = 8
slow = pytest.mark.slow


def some(quick, values):
    """The values, of which those that are not quick are marked slow."""
    return [v if v in quick else pytest.param(v, marks=slow) for v in values]


@functools.cache
def make_problem(size=64, width=16, groups=2, **options):
    rng = np.random.default_rng(0)
    cells = fairjax.partition({"group": [f"{i:03d}" for i in range(groups)]})

    def statistics(params, batch):
        hidden = jax.nn.relu(batch["x"] @ params["w"] + params["b"])
        z = hidden @ params["v"]
        return {"loss": jax.nn.softplus(z) - batch["y"] * z, "score": jax.nn.sigmoid(z)}

    functions = {
        "task": losses.task(cells),
        **losses.group_risks(cells, "group"),
        "parity": losses.demographic_parity(cells, "group", penalty="squared"),
        "risks": losses.risk_parity(cells, "group", penalty="squared"),
    }
    objectives = fairjax.cell_objectives(statistics, cells, functions, **options)
    params = {
        "w": jnp.asarray(rng.normal(size=(3, width)), jnp.float32),
        "b": jnp.zeros(width),
        "v": jnp.asarray(rng.normal(size=width), jnp.float32),
    }
    batch = {
        "x": jnp.asarray(rng.normal(size=(size, 3)), jnp.float32),
        "y": jnp.asarray(rng.integers(0, 2, size), jnp.float32),
        "cells": jnp.asarray(rng.integers(-1, groups, size), jnp.int32),
    }
    return objectives, params, batch


@functools.cache
def expected_of_problem():
    """Values and Jacobian of the problem by JAX's own reverse mode."""
    objectives, params, batch = make_problem()
    run = jax.jit(jax.jacrev(lambda p: (objectives(p, batch),) * 2, has_aux=True))
    rows, values = run(params)
    return values, rows


def assert_close(got, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6),
        got,
        expected,
    )


def two(params):
    """w·w and 3 u: their gradients are (2w, 0) and (0, 3)."""
    return jnp.stack([params["w"] @ params["w"], 3 * params["u"]])


class TestAnyObjectives:
    @pytest.mark.parametrize("strategy", [*GENERAL, "auto"])
    def test_by_hand(self, strategy):
        params = {"w": jnp.array([1.0, -2.0]), "u": jnp.array(0.5)}
        run = jax.jit(fairjax.value_and_jacobian(two, strategy=strategy))
        values, rows = run(params)
        np.testing.assert_allclose(values, [5.0, 1.5])
        np.testing.assert_allclose(rows["w"], [[2.0, -4.0], [0.0, 0.0]])
        np.testing.assert_allclose(rows["u"], [0.0, 3.0])

    @pytest.mark.parametrize("strategy", [*GENERAL, "auto"])
    def test_auxiliary_outputs_and_further_arguments(self, strategy):
        def objectives(w, scale, name):
            return jnp.stack([scale * w, w**2, w**3]), {"name": len(name)}

        run = fairjax.value_and_jacobian(objectives, strategy=strategy, has_aux=True)
        found_aux = []

        @jax.jit
        def compiled(w, scale):
            (values, aux), rows = run(w, scale, "abc")
            found_aux.append(aux)
            return values, rows

        values, rows = compiled(2.0, 5.0)
        np.testing.assert_allclose(values, [10.0, 4.0, 8.0])
        np.testing.assert_allclose(rows, [5.0, 4.0, 12.0])
        assert found_aux == [{"name": 3}]

    @pytest.mark.parametrize("chunk", [1, 2, 5, 7])
    def test_any_chunk_of_rows(self, chunk):
        def objectives(w):
            return jnp.arange(1.0, 6.0) * w

        run = fairjax.value_and_jacobian(objectives, strategy="map", chunk_size=chunk)
        rows = jax.jit(run)(3.0)[1]
        np.testing.assert_allclose(rows, [1.0, 2.0, 3.0, 4.0, 5.0])

    @pytest.mark.parametrize("strategy", GENERAL)
    def test_rows_have_the_types_of_the_parameters(self, strategy):
        params = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2, jnp.float16)}
        run = fairjax.value_and_jacobian(
            lambda p: jnp.stack([p["a"].sum() * 2.0, p["b"].sum() * 1.0]),
            strategy=strategy,
        )
        _, rows = jax.jit(run)(params)
        assert (rows["a"].dtype, rows["b"].dtype) == (jnp.bfloat16, jnp.float16)
        np.testing.assert_array_equal(np.float32(rows["a"]), [[2, 2], [0, 0]])

    def test_second_derivatives(self):
        def norm(w):
            _, rows = fairjax.value_and_jacobian(lambda w: jnp.stack([w**2, w**3]))(w)
            return jnp.sum(rows**2)  # 4 w² + 9 w⁴

        assert jax.jit(jax.grad(norm))(2.0) == pytest.approx(8 * 2 + 36 * 8)


@functools.cache
def second_batch():
    """Its arguments after a first batch, and what is expected of it."""
    objectives, params, batch = make_problem(decay=0.7)
    start = objectives.init_running()
    _, running = jax.jit(objectives)(params, batch, start)
    later = jax.tree.map(lambda leaf: leaf[::2], batch)

    def twice(params):
        values, after = objectives(params, later, running)
        return values, (values, after)

    rows, (values, after) = jax.jit(jax.jacrev(twice, has_aux=True))(params)
    return (params, later, running), ((values, after), rows)


class TestCellObjectives:
    @pytest.mark.parametrize("strategy", some(["pulls", "cells"], ALL))
    def test_strategies_agree_with_jacrev(self, strategy):
        objectives, params, batch = make_problem()
        run = jax.jit(fairjax.value_and_jacobian(objectives, strategy=strategy))
        assert_close(run(params, batch), expected_of_problem())

    @slow
    @pytest.mark.parametrize("strategy", ALL)
    def test_running_means(self, strategy):
        objectives, _, _ = make_problem(decay=0.7)
        arguments, expected = second_batch()
        run = fairjax.value_and_jacobian(objectives, strategy=strategy, has_aux=True)
        assert_close(jax.jit(run)(*arguments), expected)

    def test_running_means_by_hand(self):
        # After losses 2 (twice) and then 4, with decay ½: sums (½·½·4 + ½·4),
        # counts (½·½·2 + ½·1); the slope of the mean in the batch's sum is 1/N̂.
        cells = fairjax.partition({"sex": ["f"]}, single_level="allow")
        objectives = fairjax.cell_objectives(
            lambda w, batch: {"loss": w * batch["x"]},
            cells,
            {"task": losses.task(cells)},
            decay=0.5,
        )
        run = jax.jit(
            fairjax.value_and_jacobian(objectives, strategy="cells", has_aux=True)
        )
        first = {"x": jnp.array([2.0, 2.0]), "cells": jnp.array([0, 0])}
        second = {"x": jnp.array([4.0]), "cells": jnp.array([0])}
        (_, running), _ = run(jnp.array(1.0), first, objectives.init_running())
        (values, _), rows = run(jnp.array(1.0), second, running)
        np.testing.assert_allclose(values, [3.0 / 1.0])
        # N̂ = (½·½·2 + ½·1) / (1 − ¼) = 4/3, and the batch's sum has slope 4.
        np.testing.assert_allclose(rows, [4.0 / (4 / 3)], rtol=1e-6)


def mesh_of(kind=AxisType.Auto):
    return jax.make_mesh((DEVICES,), ("data",), axis_types=(kind,))


def on_mesh(mesh, params, batch):
    spread = NamedSharding(mesh, PartitionSpec("data"))
    return jax.device_put(params, NamedSharding(mesh, PartitionSpec())), jax.device_put(
        batch, spread
    )


class TestSeveralDevices:
    @slow
    @pytest.mark.parametrize(
        ("strategy", "in_context"), [("pulls", True), ("auto", True), ("pulls", False)]
    )
    def test_a_sharded_batch_is_not_gathered(self, strategy, in_context):
        objectives, params, batch = make_problem()
        mesh = mesh_of()
        spread = on_mesh(mesh, params, batch)
        run = jax.jit(fairjax.value_and_jacobian(objectives, strategy=strategy))
        if in_context:
            with jax.set_mesh(mesh):
                compiled = run.lower(*spread).compile()
        else:
            compiled = run.lower(*spread).compile()
        text = compiled.as_text()
        assert "all-reduce" in text
        assert not re.search("all-gather|all-to-all|collective-permute", text)
        assert_close(compiled(*spread), expected_of_problem())

    @slow
    def test_a_mesh_with_explicit_axes(self):
        objectives, params, batch = make_problem()
        mesh = mesh_of(AxisType.Explicit)
        with jax.set_mesh(mesh):
            spread = on_mesh(mesh, params, batch)
            found = jax.jit(fairjax.value_and_jacobian(objectives))(*spread)
        assert_close(found, expected_of_problem())

    def test_auto_says_why_it_pulls_on_a_mesh(self):
        objectives, params, batch = make_problem(groups=32)
        assert explain(objectives)(params, batch).strategy == "cells"
        spread = on_mesh(mesh_of(), params, batch)
        plan = explain(objectives)(*spread)
        assert plan.strategy == "pulls"
        assert "gather the batch" in plan.reason

    @slow
    @pytest.mark.parametrize(
        ("check_vma", "strategy"),
        [*((True, name) for name in ALL), *((False, name) for name in ALL[:4])],
    )
    def test_shard_map_gives_the_jacobian_of_the_whole_batch(self, strategy, check_vma):
        objectives, params, batch = make_problem(axis_name="data")
        run = jax.shard_map(
            fairjax.value_and_jacobian(objectives, strategy=strategy),
            mesh=mesh_of(),
            in_specs=(PartitionSpec(), PartitionSpec("data")),
            out_specs=PartitionSpec(),
            check_vma=check_vma,
        )
        assert_close(jax.jit(run)(params, batch), expected_of_problem())

    def test_plain_objectives_within_shard_map(self):
        """Of a device's own examples: 3 w on average, as in `jax.jacrev`."""

        def objectives(w, x):
            return jnp.stack([w @ x.sum(0), jnp.sum(w**2)])

        def run(differentiate):
            run = jax.shard_map(
                lambda w, x: differentiate(objectives)(w, x),
                mesh=mesh_of(),
                in_specs=(PartitionSpec(), PartitionSpec("data")),
                out_specs=PartitionSpec(),
            )
            return jax.jit(run)(jnp.ones(2), jnp.arange(16.0).reshape(8, 2))

        def rows(objectives):
            return lambda *args: fairjax.value_and_jacobian(objectives)(*args)[1]

        np.testing.assert_array_equal(run(rows), run(jax.jacrev))

    def test_auto_uses_cells_within_shard_map(self):
        objectives, params, batch = make_problem(512, groups=16, axis_name="data")
        chosen = []

        def run(params, batch):
            chosen.append(explain(objectives)(params, batch).strategy)
            return params

        specs = (PartitionSpec(), PartitionSpec("data"))
        spread = jax.shard_map(
            run, mesh=mesh_of(), in_specs=specs, out_specs=PartitionSpec()
        )
        jax.eval_shape(spread, params, batch)
        assert chosen == ["cells"]

    @slow
    @pytest.mark.parametrize("strategy", ["pulls", "cells"])
    def test_an_axis_of_vmap(self, strategy):
        objectives, params, batch = make_problem(axis_name="data")
        parts = jax.tree.map(lambda leaf: leaf.reshape(4, -1, *leaf.shape[1:]), batch)
        run = fairjax.value_and_jacobian(objectives, strategy=strategy)
        run = jax.jit(jax.vmap(run, (None, 0), axis_name="data"))
        found = run(params, parts)
        for i in range(4):
            here = jax.tree.map(lambda leaf, i=i: leaf[i], found)
            assert_close(here, expected_of_problem())


class TestChoice:
    def test_many_groups_go_by_cells_and_the_costs_say_so(self):
        objectives, params, batch = make_problem(1024, 64, groups=16)
        plan = explain(objectives)(params, batch)
        assert plan.strategy == "cells"
        assert plan.costs["cells"] == min(plan.costs.values())
        assert set(plan.costs) == {"cells", "jacrev", "map", "pulls"}

    def test_one_objective_is_pulled(self):
        objectives, params, batch = make_problem()
        cells = fairjax.partition({"sex": ["f", "m"]})
        women = {"f": losses.group_risk(cells, "sex", "f")}
        alone = fairjax.cell_objectives(objectives.statistics_fn, cells, women)
        costs = explain(alone)(params, batch).costs
        assert costs["cells"] == costs["pulls"]

    def test_other_objectives_are_pulled_unless_that_compiles_for_long(self):
        def objectives(number):
            return lambda w: jnp.arange(1.0, number + 1) * w

        assert explain(objectives(3))(jnp.array(1.0)).strategy == "pulls"
        assert explain(objectives(100))(jnp.array(1.0)).strategy == "map"

    def test_the_device_decides_between_batches_and_chunks(self):
        """Named by a type, by the mesh in scope, or else that of the arrays."""

        def strategy(*args):
            return explain(lambda w: jnp.arange(100.0) * w)(*args).strategy

        gpu = AbstractDevice(device_kind="gpu", num_cores=None, platform="gpu")
        mesh = AbstractMesh((1,), ("data",), abstract_device=gpu)
        there = NamedSharding(mesh, PartitionSpec())
        shape = jax.ShapeDtypeStruct((), jnp.float32, sharding=there)
        assert strategy(shape) == "jacrev"
        with jax.sharding.use_abstract_mesh(mesh):
            assert strategy(jax.ShapeDtypeStruct((), jnp.float32)) == "jacrev"
        assert strategy(jax.ShapeDtypeStruct((), jnp.float32)) == "map"
        assert strategy(jnp.array(1.0)) == "map"

    def test_a_loop_of_a_fixed_number_of_examples_is_pulled(self):
        def statistics(w, batch):
            def step(h, x):
                return jnp.tanh(h @ w + x), None

            h, _ = jax.lax.scan(step, jnp.zeros((4, 2)), batch["x"].swapaxes(0, 1))
            return {"loss": h.sum(1)}

        cells = fairjax.partition({"sex": ["f", "m"]})
        objectives = fairjax.cell_objectives(
            statistics, cells, losses.group_risks(cells, "sex")
        )
        batch = {"x": jnp.ones((4, 3, 2)), "cells": jnp.array([0, 1, 0, 1])}
        plan = explain(objectives)(jnp.ones((2, 2)), batch)
        assert plan.strategy == "pulls"
        assert "fail for a part of the batch: " in plan.reason

    def test_abstract_arguments_of_any_objectives(self):
        """Concrete ones stay so: the number of objectives depends on one."""

        def objectives(w, x, number):
            return jnp.stack([jnp.sum(w * x)] * number)

        shape = jax.ShapeDtypeStruct((2,), jnp.float32)
        plan = explain(objectives)(shape, shape, 3)
        assert plan.strategy == "pulls"
        with pytest.raises(ValueError, match=r"values \[K\]"):
            explain(lambda w, x: w * x[:, None])(shape, shape)

    def test_memory_makes_a_loop(self, monkeypatch):
        def objectives(w):
            return (jnp.ones((100, 2**22)) @ jnp.tanh(w)).T

        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        plan = explain(objectives)(jax.ShapeDtypeStruct((2**22,), jnp.float32))
        assert plan.strategy == "map"
        assert 1 <= plan.chunk_size < 100

    @pytest.mark.slow
    def test_equal_shapes_compile_once(self):
        objectives, params, batch = make_problem()
        traces = []
        inner = objectives.statistics_fn

        def counted(params, batch):
            traces.append(None)
            return inner(params, batch)

        objectives = dataclasses.replace(objectives, statistics_fn=counted)
        run = jax.jit(fairjax.value_and_jacobian(objectives))
        run(params, batch)
        first = len(traces)
        run(jax.tree.map(lambda leaf: leaf + 1, params), batch)
        assert len(traces) == first > 0
        assert run._cache_size() == 1


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"strategy": "fast"},
                "'auto', 'jacrev', 'pulls', 'map' or 'cells'; got 'fast'",
            ),
            (
                {"strategy": "pulls", "chunk_size": 2},
                "chunk_size must be at least 1.*got chunk_size=2 with strategy='pulls'",
            ),
            (
                {"strategy": "map", "chunk_size": 0},
                "chunk_size must be at least 1.*got chunk_size=0 with strategy='map'",
            ),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            fairjax.value_and_jacobian(two, **options)

    def test_cells_of_other_objectives(self):
        run = fairjax.value_and_jacobian(two, strategy="cells")
        with pytest.raises(ValueError, match="cell_objectives; got function"):
            run({"w": jnp.ones(2), "u": jnp.ones(())})

    @pytest.mark.parametrize("strategy", [*GENERAL, "auto"])
    def test_values_that_are_no_vector(self, strategy):
        run = fairjax.value_and_jacobian(lambda w: w.sum(), strategy=strategy)
        with pytest.raises(ValueError, match=r"values \[K\].*shape \(\)"):
            run(jnp.ones(2))

    @pytest.mark.parametrize("strategy", [*GENERAL, "auto"])
    @pytest.mark.parametrize(
        ("returned", "has_aux", "message"),
        [
            (
                lambda w: (w, w),
                False,
                r"values \[K\]; got a tuple of 2\. With has_aux=True",
            ),
            (lambda w: w, True, r"\(values, aux\), since has_aux=True; got no tuple"),
            (lambda w: {"a": w.sum()}, False, "got dict.*stack_objectives"),
        ],
    )
    def test_what_is_no_values(self, strategy, returned, has_aux, message):
        run = fairjax.value_and_jacobian(returned, strategy=strategy, has_aux=has_aux)
        with pytest.raises(ValueError, match=message):
            run(jnp.ones(2))

    def test_integer_parameters(self):
        with pytest.raises(ValueError, match=r"\['u'\] is int32"):
            fairjax.value_and_jacobian(two)({"w": jnp.ones(2), "u": jnp.array(1)})

    def test_running_means_and_has_aux_go_together(self):
        objectives, _, _ = make_problem(decay=0.9)
        with pytest.raises(ValueError, match="got has_aux=False. Pass has_aux=True"):
            fairjax.value_and_jacobian(objectives)
        with pytest.raises(ValueError, match="got has_aux=True. Pass has_aux=False"):
            fairjax.value_and_jacobian(make_problem()[0], has_aux=True)

    def test_missing_batch_and_missing_cells(self):
        objectives, params, batch = make_problem()
        with pytest.raises(ValueError, match="got 0 arguments"):
            fairjax.value_and_jacobian(objectives)(params)
        with pytest.raises(ValueError, match="no 'cells'"):
            fairjax.value_and_jacobian(objectives)(params, {"x": batch["x"]})
