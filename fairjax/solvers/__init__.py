"""Pure K×K mathematics, one family a file."""

from fairjax.solvers.alignment import aligned_mtl, config, imtl_g
from fairjax.solvers.bargaining import Bargain, fairgrad_alpha, nash_mtl
from fairjax.solvers.dual_cone import (
    ClosestUpdate,
    DualCone,
    closest_update,
    dual_cone,
)
from fairjax.solvers.projection import project_conflicts
from fairjax.solvers.quadratic import NonnegativeQP, nonnegative_qp
from fairjax.solvers.simplex import SimplexPoint, conflict_averse, min_norm
from fairjax.solvers.vaccine import gradvac

__all__ = [
    "Bargain",
    "ClosestUpdate",
    "DualCone",
    "NonnegativeQP",
    "SimplexPoint",
    "aligned_mtl",
    "closest_update",
    "config",
    "conflict_averse",
    "dual_cone",
    "fairgrad_alpha",
    "gradvac",
    "imtl_g",
    "min_norm",
    "nash_mtl",
    "nonnegative_qp",
    "project_conflicts",
]
