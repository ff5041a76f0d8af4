"""XLA's optimisation levels: quick compilation for programs that run briefly.

A method's training loop takes longer to compile than to run. At a low optimisation
level, compilation takes a third of the time, and the results of training and audit stay
the same to the bit.
"""

import os

import jaxlib.version

_FLAGS = "XLA_FLAGS"
_QUICK: dict[str, int | bool] = {"xla_backend_optimization_level": 1}
_FULL: dict[str, int | bool] = {"xla_backend_optimization_level": 3}
# Later versions do not know the flag, and do not start if it is set.
if jaxlib.version.__version_info__ < (0, 11):
    _QUICK["xla_cpu_use_fusion_emitters"] = False
    _FULL["xla_cpu_use_fusion_emitters"] = True


def quickly() -> None:
    """Sets quick compilation for all programs that are not compiled `in_full`.

    Must be called before the first use of a device. Flags that the user set stay.
    """
    chosen = " ".join(f"--{name}={value}".lower() for name, value in _QUICK.items())
    os.environ.setdefault(_FLAGS, chosen)
    global _is_quick
    _is_quick = os.environ[_FLAGS] == chosen


_is_quick = False


def in_full() -> dict[str, int | bool] | None:
    """Returns ``jax.jit`` options for programs that run often; None if not quick."""
    return _FULL if _is_quick else None
