"""How hard XLA works on a program: a run compiles many, and most of them run briefly.

A method's training loop takes longer to compile than to run. Compiled quickly, it takes
a third of that time, and neither training nor the audit changes by a bit.
"""

import os

import jaxlib.version

_FLAGS = "XLA_FLAGS"
_QUICK: dict[str, int | bool] = {"xla_backend_optimization_level": 1}
_FULL: dict[str, int | bool] = {"xla_backend_optimization_level": 3}
# Later versions do not know the flag, and do not start with it.
if jaxlib.version.__version_info__ < (0, 11):
    _QUICK["xla_cpu_use_fusion_emitters"] = False
    _FULL["xla_cpu_use_fusion_emitters"] = True


def quickly() -> None:
    """Compile all programs quickly, but for those that are compiled `in_full`.

    Must be called before the first use of a device. Flags that the user set stay.
    """
    chosen = " ".join(f"--{name}={value}".lower() for name, value in _QUICK.items())
    os.environ.setdefault(_FLAGS, chosen)
    global _is_quick
    _is_quick = os.environ[_FLAGS] == chosen


_is_quick = False


def in_full() -> dict[str, int | bool] | None:
    """Options for ``jax.jit`` of what runs often; None where nothing was hastened."""
    return _FULL if _is_quick else None
