"""Which operations keep the examples of a batch apart, one by one, by their rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fairjax.jacobian._jaxprs import trace_flat
from fairjax.jacobian._linearity import is_linear
from fairjax.jacobian._separability import analyse
from fairjax.jacobian._separable_ops import CoupledError, Kind

SIZE = 7


def ones(shape, kind=np.float32):
    """Of NumPy, which has nothing to compile; they are only traced."""
    return np.ones(shape, kind)


# The examples lie at the axis that the name says; no other length is theirs.
FIRST, SECOND, LAST = (ones(s) for s in ((SIZE, 3, 4), (3, SIZE, 4), (3, 4, SIZE)))
ROW = np.arange(SIZE)
IMAGES, KERNEL = ones((SIZE, 5, 6, 3)), ones((2, 2, 3, 4))
NHWC = ("NHWC", "HWIO", "NHWC")


def found(run, *values, kinds=None):
    """Where the examples are in the results; at first where the operands' length is."""
    closed = trace_flat(run, *values)
    if kinds is None:
        kinds = [
            Kind(value.shape.index(SIZE) if SIZE in value.shape else None)
            for value in values
        ]
    analysis = analyse(closed.jaxpr, kinds, SIZE)
    axes = [analysis.kinds[var].axis for var in closed.jaxpr.outvars]
    return (axes[0] if len(axes) == 1 else axes), analysis.positional


def windows(x, **changes):
    settings = {
        "window_dimensions": (1, 2, 1),
        "window_strides": (1, 1, 1),
        "padding": ((0, 0),) * 3,
        "base_dilation": (1, 1, 1),
        "window_dilation": (1, 1, 1),
    }
    return lax.reduce_window(x, -jnp.inf, lax.max, **(settings | changes))


def dot(contracted, batched=((), ())):
    return lambda a, b: lax.dot_general(a, b, (contracted, batched))


def convolve(image, kernel, numbers=NHWC, **more):
    return lax.conv_general_dilated(
        image, kernel, (1, 1), "VALID", dimension_numbers=numbers, **more
    )


def looped(body, start, over):
    return lambda *values: lax.scan(
        lambda carry, x: body(carry, x), start(*values), over(*values)
    )


W = ones((4, 5))

SEPARATE = {
    "elementwise": (jnp.exp, [FIRST], 0),
    "elementwise later": (jnp.exp, [LAST], 2),
    "broadcast": (
        lambda x: lax.broadcast_in_dim(x, (5, *x.shape), (1, 2, 3)),
        [FIRST],
        1,
    ),
    "reshape behind": (lambda x: x.reshape(SIZE, 12), [FIRST], 0),
    "reshape before": (lambda x: x.reshape(12, SIZE), [LAST], 1),
    "reshape around": (lambda x: x.reshape(1, 3, SIZE, 2, 2), [SECOND], 2),
    "reshape of a square": (
        lambda x: x.reshape(SIZE, SIZE, 1),
        [ones((SIZE, SIZE))],
        0,
    ),
    "transpose": (lambda x: x.transpose(2, 0, 1), [FIRST], 1),
    "transpose back": (lambda x: x.transpose(2, 0, 1), [LAST], 0),
    "sum behind": (lambda x: x.sum(1), [FIRST], 0),
    "sum before": (lambda x: x.sum(0), [SECOND], 0),
    "sum on both sides": (lambda x: x.sum((0, 2)), [SECOND], 0),
    "maximum before": (lambda x: x.max(1), [LAST], 1),
    "place of the maximum": (lambda x: jnp.argmax(x, 0), [SECOND], 0),
    "squeeze": (lambda x: x.squeeze(0), [ones((1, SIZE, 2))], 0),
    "cumulative sum": (lambda x: jnp.cumsum(x, 1), [FIRST], 0),
    "cumulative maximum of the last": (lambda x: lax.cummax(x, 2), [SECOND], 1),
    "concatenate": (lambda x: jnp.concatenate([x, 2 * x], 1), [FIRST], 0),
    "stack": (lambda x: jnp.stack([x, 2 * x], 1), [FIRST], 0),
    "stack before": (lambda x: jnp.stack([x, 2 * x]), [FIRST], 1),
    "unstack": (lambda x: jnp.unstack(x, axis=2)[:2], [SECOND], [1, 1]),
    "unstack before": (lambda x: jnp.unstack(x)[:2], [SECOND], [0, 0]),
    "sort": (lambda x: jnp.sort(x, -1), [SECOND], 1),
    "sort of two": (
        lambda x, y: lax.sort((x, y), dimension=1, num_keys=1),
        [FIRST, FIRST],
        [0, 0],
    ),
    "split": (lambda x: jnp.split(x, [1], 0), [SECOND], [1, 1]),
    "greatest": (lambda x: lax.top_k(x, 2), [SECOND], [1, 1]),
    "reverse": (lambda x: jnp.flip(x, (0, 2)), [SECOND], 1),
    "slice": (lambda x: x[:, 1:], [FIRST], 0),
    "slice with a stride": (lambda x: x[::2, :, ::3], [SECOND], 1),
    "slice at a traced place": (
        lambda x, i: lax.dynamic_slice(x, (0, i, 0), (SIZE, 1, 4)),
        [FIRST, np.array(1)],
        0,
    ),
    "pad": (lambda x: jnp.pad(x, ((1, 2), (0, 0), (0, 1))), [SECOND], 1),
    "windows": (windows, [FIRST], 0),
    "weights behind": (dot(((2,), (0,))), [FIRST, W], 0),
    "weights behind later": (dot(((2,), (0,))), [SECOND, W], 1),
    "weights before": (dot(((1,), (1,))), [ones((2, 3)), FIRST], 1),
    "weights before later": (dot(((1,), (0,))), [ones((2, 3)), LAST], 2),
    "two weights before": (dot(((2,), (0,))), [ones((5, 6, 3)), LAST], 3),
    "weights for each head": (
        dot(((2,), (1,)), ((0,), (0,))),
        [SECOND, ones((3, 4, 5))],
        1,
    ),
    "weights for each head before": (
        dot(((2,), (1,)), ((0,), (0,))),
        [ones((3, 5, 4)), LAST],
        2,
    ),
    "product of examples": (dot(((2,), (2,)), ((0,), (0,))), [FIRST, FIRST], 0),
    "product of examples later": (
        dot(((2,), (0,)), ((0, 1), (1, 2))),
        [SECOND, ones((4, 3, SIZE, 5))],
        1,
    ),
    "product of examples at different axes": (
        dot(((2,), (2,)), ((0,), (1,))),
        [FIRST, ones((5, SIZE, 4))],
        0,
    ),
    "convolution": (convolve, [IMAGES, KERNEL], 0),
    "convolution to another layout": (
        lambda x, k: convolve(x, k, ("NHWC", "HWIO", "CHWN")),
        [IMAGES, KERNEL],
        3,
    ),
    "columns": (lambda x: x[:, np.array([0, 2])], [FIRST], 0),
    "rows of the second axis": (lambda x: x[np.array([0, 2])], [SECOND], 1),
    "embedding": (lambda t, i: t[i], [ones((10, 4)), ROW], 0),
    "embedding of several": (
        lambda t, i: t[i],
        [ones((10, 4)), ones((2, SIZE), int)],
        1,
    ),
    "own columns": (
        lambda x, i: jax.vmap(lambda row, place: row[place])(x, i),
        [FIRST, ROW],
        0,
    ),
    "nested": (jax.jit(lambda x: x.sum(0)), [SECOND], 0),
    "remat": (jax.checkpoint(lambda x: jnp.sin(x).sum(0)), [SECOND], 0),
    "own tangent": (jax.nn.relu, [SECOND], 1),
    "steps": (
        looped(lambda c, x: (c + x, c * x), lambda x: x[0], lambda x: x),
        [SECOND],
        [0, 1],
    ),
    "steps with a counter": (
        looped(
            lambda c, x: ((c[0] + 1, c[1] + x), c[0] * x),
            lambda x: (0, x[0]),
            lambda x: x,
        ),
        [SECOND],
        [None, 0, 1],
    ),
    "a loop": (
        lambda x: lax.while_loop(
            lambda c: c[0] < 3, lambda c: (c[0] + 1, -c[1]), (0, x)
        ),
        [SECOND],
        [None, 1],
    ),
    "a choice": (
        lambda x, i: lax.cond(i > 0, lambda x: x.sum(0), lambda x: x[1], x),
        [SECOND, np.array(1)],
        0,
    ),
}


@pytest.mark.parametrize("name", SEPARATE)
def test_examples_that_are_kept_apart(name):
    run, values, axis = SEPARATE[name]
    assert found(run, *values) == (axis, False)


COMBINES = "combines examples of the batch"
CHANGES = "changes the number of examples"
COUPLED = {
    "sum": (lambda x: x.sum(0), [FIRST], COMBINES),
    "sum of all": (jnp.sum, [SECOND], COMBINES),
    "place of the maximum": (lambda x: jnp.argmax(x, 1), [SECOND], COMBINES),
    "different axes": (
        lambda x: x + x.T,
        [ones((SIZE, SIZE))],
        COMBINES,
    ),
    "reshape": (lambda x: x.reshape(21, 4), [FIRST], "a reshape merges the axis"),
    "reshape of a square": (
        lambda x: x.T.reshape(SIZE * SIZE),
        [ones((SIZE, SIZE))],
        "a reshape merges the axis",
    ),
    "cumulative sum": (lambda x: jnp.cumsum(x, 1), [SECOND], COMBINES),
    "cumulative sum of the last": (lambda x: lax.cumsum(x, 2), [LAST], COMBINES),
    "concatenate": (lambda x: jnp.concatenate([x, x]), [FIRST], COMBINES),
    "unstack": (lambda x: jnp.unstack(x)[:2], [FIRST], COMBINES),
    "sort": (lambda x: jnp.sort(x, -1), [LAST], COMBINES),
    "split": (lambda x: jnp.split(x, [1], 0), [FIRST], COMBINES),
    "greatest": (lambda x: lax.top_k(x, 2), [LAST], COMBINES),
    "reverse": (lambda x: jnp.flip(x, (0, 2)), [FIRST], COMBINES),
    "slice": (lambda x: x[1:], [FIRST], CHANGES),
    "slice with a stride": (lambda x: x[::2], [FIRST], COMBINES),
    "pad": (lambda x: jnp.pad(x, ((0, 0), (0, 1), (0, 0))), [SECOND], COMBINES),
    "pad within": (
        lambda x: lax.pad(x, 0.0, ((0, 0, 1), (0, 0, 0), (0, 0, 0))),
        [FIRST],
        COMBINES,
    ),
    "windows": (windows, [SECOND], COMBINES),
    "windows with a stride": (
        lambda x: windows(x, window_strides=(2, 1, 1)),
        [FIRST],
        COMBINES,
    ),
    "windows of padding": (
        lambda x: windows(x, padding=((1, 0), (0, 0), (0, 0))),
        [FIRST],
        COMBINES,
    ),
    "windows that are dilated": (
        lambda x: windows(x, base_dilation=(2, 1, 1)),
        [FIRST],
        COMBINES,
    ),
    "contraction": (dot(((1,), (0,))), [SECOND, ones((SIZE, 2))], COMBINES),
    "contraction with a constant": (
        lambda x: dot(((1,), (0,)))(x, ones((SIZE, 2))),
        [SECOND],
        COMBINES,
    ),
    "all pairs": (dot(((2,), (2,))), [FIRST, FIRST], COMBINES),
    "examples as a kernel": (
        lambda x, k: convolve(x, k),
        [ones((2, 9, 9, 3)), ones((SIZE, 2, 3, 4))],
        COMBINES,
    ),
    "examples as channels": (
        convolve,
        [ones((2, 5, 5, SIZE)), ones((2, 2, SIZE, 4))],
        COMBINES,
    ),
    "images in groups": (
        lambda x, k: convolve(x, k, batch_group_count=SIZE),
        [IMAGES, ones((2, 2, 3, SIZE))],
        COMBINES,
    ),
    "other examples": (lambda x: x[jnp.zeros(SIZE, int)], [FIRST], COMBINES),
    "some examples": (lambda x: x[np.array([0, 2])], [FIRST], COMBINES),
    "a scan of them": (
        looped(lambda c, x: (c + x.sum(), c), lambda x: 0.0, lambda x: x),
        [FIRST],
        COMBINES,
    ),
    "a loop that asks them": (
        lambda x: lax.while_loop(lambda x: x.sum() < 3, lambda x: x + 1, x),
        [FIRST],
        COMBINES,
    ),
    "a choice of axes": (
        lambda x, i: lax.cond(i > 0, lambda x: x, lambda x: x.T, x),
        [ones((SIZE, SIZE)), np.array(1)],
        COMBINES,
    ),
    "an operation without a rule": (
        lambda x: jnp.linalg.cholesky(x),
        [ones((SIZE, 3, 3))],
        "the operation 'cholesky' is not known to keep examples apart",
    ),
}


@pytest.mark.parametrize("name", COUPLED)
def test_examples_that_are_coupled(name):
    run, values, message = COUPLED[name]
    with pytest.raises(CoupledError, match=message):
        found(run, *values)


def test_a_constant_with_a_row_for_each_example_is_positional():
    for constant in (ROW, ones((SIZE, 1)) * ROW[:, None]):
        own = constant.reshape(SIZE, 1, 1)
        assert found(lambda x, own=own: x + own, FIRST) == (0, True)
    # One number for all, in any shape, is not.
    for other in (ones(()), ones((1, 3, 4))):
        assert found(lambda x, other=other: x + other, FIRST) == (0, False)
    assert found(lambda x: x * lax.broadcasted_iota(int, x.shape, 2), FIRST)[1] is False
    assert found(lambda x: x * lax.broadcasted_iota(int, x.shape, 0), FIRST)[1] is True
    joined = lambda x, y: jnp.concatenate([x, y], 1)  # noqa: E731
    assert found(lambda x: joined(x, jnp.zeros((SIZE, 2, 4))), FIRST) == (0, False)


def test_parameters_meet_every_example_in_the_same_way():
    examples, params = Kind(0), Kind(params=True)

    def judged(run, weight):
        return found(run, FIRST, weight, kinds=[examples, params])

    assert judged(lambda x, w: x * w, ones(4)) == (0, False)
    assert judged(lambda x, w: x @ w, W) == (0, False)
    with pytest.raises(CoupledError, match="takes a parameter for each example"):
        judged(lambda x, w: x * w, ones((SIZE, 1, 1)))
    with pytest.raises(CoupledError, match="takes a parameter in an unknown way"):
        judged(lambda x, w: lax.pad(x, w, ((0, 0, 0), (1, 0, 0), (0, 0, 0))), W[0, 0])


C, V = ones((3, 4)), np.arange(12, dtype=np.float32).reshape(3, 4)
LINEAR = {
    "identity": (lambda c: c, True),
    "sum of two": (lambda c: c + 2 * c, True),
    "difference": (lambda c: c.sum(0) - c[1], True),
    "with 0 added": (lambda c: c + 0.0, True),
    "with 1 added": (lambda c: c + 1.0, False),
    "with a constant added": (lambda c: V - c, False),
    "with zeros added": (lambda c: c + 0.0 * jnp.exp(V), True),
    "scaled": (lambda c: c * V / 3, True),
    "divided by itself": (lambda c: V / c, False),
    "squared": (lambda c: c * c, False),
    "multiplied": (lambda c: c @ V.T, True),
    "multiplied by itself": (lambda c: c @ c.T, False),
    "multiplied by 0 of itself": (lambda c: c * (0.0 * c), True),
    "selected": (lambda c: jnp.where(jnp.greater(V, 2), c, 0.0), True),
    "selected beside another": (lambda c: jnp.where(jnp.greater(V, 2), c, 1.0), False),
    "selected by itself": (
        lambda c: lax.select(lax.convert_element_type(c, bool), c, 2 * c),
        False,
    ),
    "selected by its sign": (lambda c: jnp.where(c > 0, c, 0.0), False),
    "picked": (lambda c: c[:, np.array([0, 2])], True),
    "curved": (jnp.sin, False),
    "a constant": (lambda c: V, False),
    "nothing": (lambda c: jnp.multiply(0.0, V), True),
}


@pytest.mark.parametrize("name", LINEAR)
def test_what_is_linear_in_a_cotangent(name):
    run, linear = LINEAR[name]
    closed = trace_flat(run, C, differentiable=False)
    if linear:  # And it is.
        np.testing.assert_allclose(run(3 * C - V), 3 * run(C) - run(V), atol=1e-4)
    assert is_linear(closed, [True]) is linear
