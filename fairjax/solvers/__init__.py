"""Pure K×K mathematics, one family a file."""

from fairjax.solvers.projection import project_conflicts

__all__ = ["project_conflicts"]
