"""Test session set-up: devices, run-time type checks, property-test profiles.

It lies beside the packages, not under tests/, because the doctests of fairjax import
the package too and must find the same devices and the same import hook.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
import jaxtyping

# Both must precede the first use of a device and the first import of the package.
jax.config.update("jax_num_cpu_devices", 8)
jaxtyping.install_import_hook("fairjax", "beartype.beartype")

hypothesis.settings.register_profile("dev", deadline=None, max_examples=30)
hypothesis.settings.register_profile(
    "ci", deadline=None, max_examples=50, derandomize=True, print_blob=True
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
