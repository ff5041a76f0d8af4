"""A reconciler of a user's own keeps every rule: one function, and one row of a table.

Krum chooses the gradient nearest to its neighbours, so that a few gradients that are
arbitrarily wrong do no harm: Blanchard et al., *Machine Learning with Adversaries:
Byzantine Tolerant Gradient Descent*, NeurIPS 2017.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fairjax
from fairjax.reconcilers import transformation, weighting
from tests.conformance import Case
from tests.test_conformance import OWN_PROGRAMS, QUICK_RULES, RULES


def krum_step(byzantine: int = 0) -> fairjax.Step:
    """Select the row with the least sum of squared distances to its nearest rows.

    Args:
      byzantine: f: of n rows in use, the n − f − 2 nearest are counted, at least one.
    """

    def weigh(own, used):
        own, row = (own + own.T) / 2, jnp.arange(len(own))
        squares = jnp.diagonal(own)
        distances = squares[:, None] + squares - 2 * own
        others = used[:, None] & used & (row[:, None] != row)
        distances = jnp.sort(jnp.where(others, distances, jnp.inf), axis=1)
        near = row < jnp.maximum(jnp.sum(used) - byzantine - 2, 1)
        counted = jnp.where(near & jnp.isfinite(distances), distances, 0.0)
        scores = jnp.where(used, jnp.sum(counted, axis=1), jnp.inf)
        return jnp.where(used & (row == jnp.argmin(scores)), 1.0, 0.0)

    return weighting(weigh)


krum = transformation(krum_step)
KRUM = Case(krum, static=("byzantine",))
# The others compile programs of their own.
QUICK = QUICK_RULES - OWN_PROGRAMS


@pytest.mark.parametrize(
    "which",
    [
        pytest.param(which, marks=() if which in QUICK else pytest.mark.slow)
        for which in RULES
    ],
)
def test_krum_keeps_every_rule(which):
    RULES[which](KRUM)


def test_krum_is_that_of_the_paper():
    """Squared distances: ab 1, ac 1, ad 9, bc 2, bd 10, cd 4; e is far from all."""
    rows = jnp.array([[1.0, 0.0], [1.0, 1.0], [2.0, 0.0], [4.0, 0.0], [9.0, 9.0]])

    def chosen(byzantine, without=()):
        transform = krum(num_objectives=5, byzantine=byzantine)
        mask = ~np.isin(np.arange(5), without)
        run = jax.jit(transform.update)
        update, state = run(rows, transform.init(rows[0]), mask=mask)
        (number,) = np.flatnonzero(state.weights)
        np.testing.assert_array_equal(update, rows[number])
        return number

    # Two nearest: a 1 + 1, b 1 + 2, c 1 + 2, d 4 + 9.
    assert chosen(byzantine=1) == 0
    # Three nearest: a 1 + 1 + 9, b 1 + 2 + 10, c 1 + 2 + 4, d 4 + 9 + 10.
    assert chosen(byzantine=0) == 2
    # Two nearest of those without c: a 1 + 9, b 1 + 10, d 9 + 10.
    assert chosen(byzantine=0, without=[2]) == 0


def test_the_method_takes_the_options_of_the_step():
    assert krum.__name__ == "krum"
    assert str(inspect.signature(krum)).startswith(
        "(*, num_objectives: int, byzantine: int = 0) -> "
    )
    expected = "\n  num_objectives: The number of objectives, K.\n  byzantine: f:"
    assert expected in krum.__doc__
    with pytest.raises(TypeError, match="unexpected keyword argument 'wrong'"):
        krum(num_objectives=2, wrong=1)
    with pytest.raises(TypeError, match="num_objectives"):
        krum()
