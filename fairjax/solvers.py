"""Solvers of all reconcilers: pure functions of K×K matrices."""

from fairjax.reconcilers.bargaining import Bargain
from fairjax.reconcilers.bargaining import solve_fairgrad_alpha as fairgrad_alpha
from fairjax.reconcilers.bargaining import solve_nash_mtl as nash_mtl
from fairjax.reconcilers.cones import ClosestUpdate, DualCone, closest_update, dual_cone
from fairjax.reconcilers.geometry import solve_aligned_mtl as aligned_mtl
from fairjax.reconcilers.geometry import solve_config as config
from fairjax.reconcilers.geometry import solve_conflict_free as conflict_free
from fairjax.reconcilers.geometry import solve_imtl_g as imtl_g
from fairjax.reconcilers.hulls import SimplexPoint, conflict_averse, min_norm
from fairjax.reconcilers.projection import solve_gradvac as gradvac
from fairjax.reconcilers.projection import solve_project_conflicts as project_conflicts
from fairjax.reconcilers.quadratic import NonnegativeQP, nonnegative_qp

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
    "conflict_free",
    "dual_cone",
    "fairgrad_alpha",
    "gradvac",
    "imtl_g",
    "min_norm",
    "nash_mtl",
    "nonnegative_qp",
    "project_conflicts",
]
