"""Test session set-up: devices, run-time type checks, property-test profiles.

It lies beside the packages, not under tests/, because the doctests of fairjax import
the package too and must find the same devices and the same import hook.
"""

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Workers occupy all cores; more threads of BLAS and OpenMP would only wait for one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import jax
import jaxlib.version
import jaxtyping
import pytest

# Tests compile thousands of programs and run most of them once: without optimisation
# they take half the time. With XLA_FLAGS="" they are compiled as for users, which
# .ci/run does where it compares solvers with TorchJD.
_QUICK = [
    "--xla_backend_optimization_level=0",
    # Small programs are not worth splitting into parts that compile side by side.
    "--xla_cpu_parallel_codegen_split_count=1",
]
if jaxlib.version.__version_info__ < (0, 11):
    _QUICK.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(_QUICK))

# A program is compiled once for all workers and for the processes that tests start,
# which inherit these variables; small ones are compiled sooner than stored.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(
        shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True
    )

# Both must precede the first use of a device and the first import of the package.
jax.config.update("jax_num_cpu_devices", 8)
jaxtyping.install_import_hook("fairjax", "beartype.beartype")

hypothesis.settings.register_profile("dev", deadline=None, max_examples=30)
hypothesis.settings.register_profile(
    "ci", deadline=None, max_examples=30, derandomize=True, print_blob=True
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

# Linux gives a process 65,530 memory maps. Every compiled program takes some, and a
# process that runs out of them dies where it compiles the next one.
_MAPS, _MOST_MAPS = Path("/proc/self/maps"), 25_000


def pytest_xdist_auto_num_workers():
    """Counts the cores that this process may use, which a container may limit."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None  # Left to the plugin, which reads it.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def pytest_collection_finish():
    """Spares the collector the million objects of imports, which live until the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def few_memory_maps():
    """Lets go of compiled programs between the files of tests, once there are many."""
    yield
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def untyped():
    """Lets wrong arguments through to the function's own check, as users have it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
