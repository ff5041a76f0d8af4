"""The public transformations, as a table that the conformance tests run through.

To test another reconciler under every rule, add it here.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

import fairjax
from fairjax import modulation, steps


@dataclass(frozen=True)
class Case:
    """A transformation of ``[K, *param]`` into ``[*param]``.

    Attributes:
      make: ``make(num_objectives=K, **settings)``.
      setting: The name and two values of a numeric setting that changes the update, if
        it has one.
      static: Its settings that are whole numbers on which shapes depend.
      single: What one objective's gradient is multiplied by; None if that depends on
        the gradient.
      variant: Whether another case takes the same code path. A variant keeps the quick
        rules only.
    """

    make: Callable[..., Any]
    setting: tuple[str, float, float] | None = None
    static: tuple[str, ...] = ()
    single: float | None = 1.0
    variant: bool = False


def by_level(*, num_objectives, key=0):
    """Two blocks, or the one that is possible, projected within and solved across."""
    rows = list(range(num_objectives))
    levels = [rows[:2], rows[2:]] if num_objectives > 2 else [rows]
    inner = [steps.project_conflicts(key=key), steps.combine("sum")]
    return fairjax.reconcile(
        steps.by_level(levels, inner, steps.imtl_g()), num_objectives=num_objectives
    )


def dual_level(*, num_objectives, limit=None, key=0):
    """Groups of one modality, whose rows differ in length and direction."""
    return modulation.dual_level(
        num_modalities=1, num_groups=num_objectives, limit=limit, key=key
    )


def balanced(*, num_objectives, strength=0.7, key=0):
    """Three steps."""
    return fairjax.reconcile(
        steps.balance_magnitudes(reference=0, strength=strength),
        steps.project_conflicts(key=key),
        steps.combine("mean"),
        num_objectives=num_objectives,
    )


def loss_balanced(*, num_objectives):
    """A step with a state that follows the losses."""
    return fairjax.reconcile(
        steps.balance_magnitudes("loss_ratio"),
        steps.combine("sum"),
        num_objectives=num_objectives,
    )


def averaged(*, num_objectives):
    """Weights of which the second step keeps a moving average."""
    return fairjax.reconcile(
        steps.imtl_g(), steps.cr_mogm(), num_objectives=num_objectives
    )


partial = functools.partial
CASES = {
    "aligned_mtl": Case(fairjax.aligned_mtl, ("tolerance", 1e-6, 0.5)),
    "by_level": Case(by_level),
    "cagrad": Case(fairjax.cagrad, ("c", 0.5, 0.1), single=1.5),
    "conflict_free": Case(fairjax.conflict_free, ("tolerance", 1e-6, 0.5)),
    "cr_mogm": Case(averaged),
    "dual_level": Case(dual_level, ("limit", 1.0, 0.5)),
    "dualproj": Case(fairjax.dualproj, ("ridge", 0.0, 0.2)),
    "dwa": Case(fairjax.dwa, static=("every",)),
    "equal_norms": Case(fairjax.equal_norms, ("strength", 1.0, 0.5)),
    "fairgrad": Case(fairjax.fairgrad, ("strength", 0.5, 0.2)),
    "fairgrad limited": Case(
        partial(fairjax.fairgrad, limit=0.4, strength=0.5), variant=True
    ),
    "fairgrad_alpha": Case(fairjax.fairgrad_alpha, ("alpha", 1.0, 2.0), single=None),
    "famo": Case(fairjax.famo, ("minimum", 0.0, 0.4)),
    "geometric_mean": Case(fairjax.geometric_mean),
    "graddrop": Case(fairjax.graddrop, ("leak", 0.0, 0.5)),
    "gradnorm": Case(fairjax.gradnorm),
    "gradvac": Case(partial(fairjax.gradvac, beta=0.5)),
    "group_dro": Case(fairjax.group_dro, ("step_size", 0.1, 1.0)),
    "imtl_g": Case(fairjax.imtl_g, ("tolerance", 1e-6, 0.5)),
    "imtl_l": Case(fairjax.imtl_l, ("learning_rate", 0.1, 0.5)),
    "loss_balanced": Case(loss_balanced, variant=True),
    "mgda": Case(fairjax.mgda),
    "modo": Case(fairjax.modo, ("learning_rate", 0.1, 0.01)),
    "nash_mtl": Case(
        fairjax.nash_mtl, ("max_norm", 1.0, 0.5), ("update_every",), single=None
    ),
    "pcd": Case(fairjax.pcd, ("progress", 0.02, 0.4), ("reference",)),
    "pcgrad": Case(fairjax.pcgrad, ("epsilon", 0.0, 0.3)),
    "pcgrad always": Case(partial(fairjax.pcgrad, condition="always"), variant=True),
    "pcgrad libmtl": Case(
        partial(fairjax.pcgrad, **fairjax.PCGRAD_VARIANTS["libmtl"]), variant=True
    ),
    "positive_sum": Case(
        partial(fairjax.positive_sum, baseline_losses=jnp.zeros(3)),
        ("strength", 0.1, 0.4),
        ("reference",),
        single=None,
    ),
    "random_weighting": Case(fairjax.random_weighting),
    "scalarize": Case(fairjax.scalarize),
    "sdmgrad": Case(fairjax.sdmgrad, ("strength", 0.3, 1.0), ("iterations",)),
    "stch": Case(fairjax.stch, ("mu", 0.1, 1.0)),
    "steps": Case(balanced, ("strength", 0.7, 0.1), variant=True),
    "uncertainty_weighting": Case(
        fairjax.uncertainty_weighting, ("learning_rate", 0.1, 0.5)
    ),
    "upgrad": Case(fairjax.upgrad, ("ridge", 0.0, 0.2)),
}

# Old names, which warn for one release, and the new ones.
DEPRECATED = {"config": "conflict_free"}

K = 3
LOSSES = jnp.array([1.0, 0.5, 2.0])
PARAMS = {
    "trunk": {"w": jnp.linspace(-1, 1, 8).reshape(4, 2), "b": jnp.ones(2)},
    "head": jnp.array([0.5, -0.5]),
}


def draw(seed: int) -> Any:
    """Stacked gradients, ``[K, *param]``, of which some conflict."""
    rng = np.random.default_rng(seed)

    def rows(leaf):
        found = rng.normal(size=(K, *leaf.shape))
        found[1] = 0.4 * found[1] - found[0]
        return jnp.asarray(found, leaf.dtype)

    return {
        "trunk": {name: rows(leaf) for name, leaf in PARAMS["trunk"].items()},
        "head": rows(PARAMS["head"]),
    }


ROWS = draw(1)
