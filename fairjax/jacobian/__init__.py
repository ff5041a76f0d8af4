"""Values ``[K]`` of several objectives and their Jacobian ``[K, *param]``."""

from fairjax.jacobian._planning import Plan
from fairjax.jacobian.strategies import Strategy, explain, value_and_jacobian

__all__ = ["Plan", "Strategy", "explain", "value_and_jacobian"]
