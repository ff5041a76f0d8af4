"""What strategies cost, by hand; segments of examples, by the sums of their rows."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fairjax
from experiments.bench import problems
from fairjax.jacobian import _costs, _padded, _segments
from fairjax.jacobian._costs import Sizes
from fairjax.jacobian._jaxprs import largest_product, trace_flat
from fairjax.jacobian._passes import SHARED, Pass, Segment, runs

SIZES = Sizes(
    objectives=3,
    examples=10,
    params=4,
    param_bytes=16.0,
    flops=1000.0,
    largest=100.0,
    # 20 FLOPs a byte; pulls in a batch cost 1.6, in a loop 1.05; windows .4.
    machine=_costs.machine("cpu"),
)


def a_pass(*owners):
    """Segments of a cell each, whose statistic these objectives read."""
    pairs = np.eye(len(owners), dtype=bool)[:, None, :]
    return Pass(tuple(map(Segment, owners, pairs)))


def test_costs_of_general_strategies_by_hand():
    # To write, read and sum 3 gradients of 16 bytes takes 2,880 FLOPs' time.
    found = _costs.general_costs(SIZES)
    assert found == pytest.approx({"pulls": 9.88, "jacrev": 13.48, "map": 10.18})
    # Without a product the forward pass is 2 B P = 80 FLOPs, or one at least.
    assert SIZES._replace(flops=0.0).forward == 80
    assert SIZES._replace(flops=0.0, params=0).forward == 1


def test_costs_of_passes_by_hand():
    one, two = a_pass(0), a_pass(1, 2)
    assert _costs.cells_cost(SIZES, [one], [7.0]) == pytest.approx(3.96)
    assert _costs.cells_cost(SIZES, [two], [1.5]) == pytest.approx(5.82)
    assert _costs.cells_cost(SIZES, [one, two], [7.0, 1.5]) == pytest.approx(8.78)
    grouped = _costs.cells_cost(SIZES, [one, two], [7.0, 1.5], grouped=True)
    assert grouped == pytest.approx(13.8)
    # Rows that are mixed: 5 of 16 bytes, and 2 · 2 · 3 · 4 FLOPs.
    for owners in ((1, SHARED), (1, 1)):
        mixed = _costs.cells_cost(SIZES, [a_pass(*owners)], [1.5])
        assert mixed == pytest.approx(5.82 + 1.6 + 0.048)


@pytest.mark.parametrize(
    ("memory", "expected"),
    # A row takes 3 · 100 + 16 bytes.
    [(65 * 316.0, ("jacrev", 8)), (3 * 316.0, ("map", 3)), (1.0, ("map", 1))],
)
def test_the_cheapest_general_strategy_fits_into_memory(memory, expected):
    assert _costs.cheapest_general(SIZES) == ("pulls", 3)
    many = SIZES._replace(objectives=65)
    assert _costs.cheapest_general(many) == ("map", 8)
    machine = many.machine._replace(batched=1.0, memory=memory)
    assert _costs.cheapest_general(many._replace(machine=machine)) == expected


def test_the_largest_product_of_nested_jaxprs():
    x, w = jnp.ones((4, 8)), jnp.ones((8, 2))
    plain = trace_flat(lambda x: 2 * x, jnp.ones((100, 100)))
    assert largest_product(plain.jaxpr) == 0
    product = trace_flat(lambda x: (x @ w).sum() * jnp.ones(1000), x)
    assert largest_product(product.jaxpr) == 4 * 8 * 4
    loop = trace_flat(
        lambda x: jax.lax.scan(lambda h, _: (h, h[:, :1] @ w[:1]), x, None, 3), x
    )
    assert largest_product(loop.jaxpr) == 4 * 2 * 4


def test_segments_of_cells_and_their_runs():
    one = a_pass(0, SHARED)
    third = Segment(2, np.array([[False, False, True, False]]))
    wide = [Segment(s.objective, np.pad(s.pairs, ((0, 0), (0, 2)))) for s in one[0]]
    whole = Pass((*wide, third))
    np.testing.assert_array_equal(whole.segment_of_cell, [0, 1, 2, -1])
    np.testing.assert_array_equal(whole.sources[0, :3], [0, SHARED, 2])
    assert whole.sources[0, 3] not in (0, 2, SHARED)
    assert runs(np.array([-1, 0, 0, 2, -1, 1])) == [(0, 1, 3), (2, 3, 4), (1, 5, 6)]


@hypothesis.given(st.lists(st.integers(1, 12), min_size=1, max_size=8))
@pytest.mark.parametrize("number", [1, 2, 3])
def test_few_lengths_add_the_least(number, needed):
    """Of all sets of so many lengths, the longest among them."""
    needed = np.array(needed)
    most, kinds = needed.max(), np.unique(needed)
    sets = itertools.combinations_with_replacement(kinds, number)
    costs = [
        np.array(chosen)[np.searchsorted(chosen, needed)].sum()
        for chosen in map(sorted, sets)
        if chosen[-1] == most
    ]
    found = _segments._split(needed, min(number, len(kinds)))
    assert list(found) == sorted(found)
    assert found[np.searchsorted(found, needed)].sum() == min(costs)


ROWS = np.random.default_rng(0).normal(size=(13, 2)).astype(np.float32)
COTANGENTS = np.arange(1.0, 14, dtype=np.float32)
ORDER = np.random.default_rng(1).permutation(13)


def blocks_of(segments, capacities, edges):
    return _segments.Blocks(
        segments,
        capacities,
        len(set(segments)),
        jnp.asarray(ORDER),
        jnp.asarray(edges[:-1]),
        jnp.asarray(edges[1:]),
    )


def by_rows(segments, edges):
    """Each segment's sum of rows, times their cotangents."""
    sums = np.zeros((len(set(segments)), 2), np.float32)
    for segment, (first, last) in zip(segments, itertools.pairwise(edges), strict=True):
        rows = ORDER[first:last]
        sums[segment] += COTANGENTS[rows] @ ROWS[rows]
    return sums


@pytest.mark.parametrize(
    ("segments", "capacities", "edges"),
    [
        ((0, 1), (8, 8), (0, 6, 13)),
        ((0, 1), (13, 13), (0, 6, 13)),
        ((0, 1), (2, 2), (0, 6, 13)),
        ((2, 0, 1), (3, 5, 3), (0, 2, 9, 13)),
        ((0, 1, 0), (4, 2, 4), (0, 5, 5, 12)),
    ],
    ids=["windows", "all at once", "overflow", "two lengths", "in two blocks"],
)
@pytest.mark.parametrize("length", [None, 1, 4])
def test_gradients_of_segments_are_sums_of_rows(segments, capacities, edges, length):
    @jax.jit
    def run():
        contraction = _segments.Contraction(
            lambda operands, cotangent: cotangent @ operands[0],
            [jnp.asarray(ROWS)],
            [0],
            jnp.asarray(COTANGENTS),
            0,
        )
        blocks = blocks_of(segments, capacities, edges)
        blocks = blocks if length is None else blocks.divide(length)
        return _segments.segment_gradients([contraction], blocks)

    (found,) = run()
    np.testing.assert_allclose(found, by_rows(segments, edges), rtol=1e-5, atol=1e-5)


def test_blocks_are_divided_where_rows_cost_more_than_windows():
    pieces, expected = [(i, i, i + 1) for i in range(8)], [8.0] * 8
    whole = _segments.lay_out(pieces, expected, 64, 160.0)
    # 8 + 2·sqrt(7) = 13.3, in eights.
    assert (whole.divided, whole.padded(64)) == (False, 8 * 16)
    divided = _segments.lay_out(pieces, expected, 64, 2.0)
    # Seven blocks with a window of one example, and 57 = 14·4 + 1 examples.
    assert (divided.divided, divided.padded(64)) == (True, (7 + 15) * 4)


@pytest.mark.slow
def test_on_a_cpu_no_convolution_is_in_a_loop():
    """There its gradient would take up to a hundred times as long."""
    problem = problems.convolutional(4, 32)
    jacobian = fairjax.value_and_jacobian(problem.objectives, strategy="cells")
    eqns = trace_flat(jacobian, problem.params, problem.batch).jaxpr.eqns
    loops = [str(eqn) for eqn in eqns if eqn.primitive.name in ("scan", "while")]
    convolutions = [eqn for eqn in eqns if "conv" in eqn.primitive.name]
    assert len(convolutions) > 3 * 8
    assert not any("conv_general_dilated" in loop for loop in loops)


@pytest.mark.parametrize("length", [1, 3, 13])
def test_gradients_of_padded_groups_are_sums_of_rows(length):
    segments, edges = (1, 0, 1), (0, 5, 5, 12)

    @jax.jit
    def run():
        return _padded.padded_gradients(
            lambda params, batch: [batch[1] * (batch[0] @ params[0])],
            [jnp.zeros(2)],
            [jnp.asarray(ROWS), jnp.ones(())],
            [jnp.asarray(COTANGENTS)],
            blocks_of(segments, (5, 5, 5), edges),
            length,
        )

    (found,) = run()
    np.testing.assert_allclose(found, by_rows(segments, edges), rtol=1e-5, atol=1e-5)
