"""The command ``python -m experiments.multifair``."""

import sys

import jax

from experiments.core import lanes
from experiments.multifair.experiment import main

if __name__ == "__main__":
    # One device a core: the lanes of a method are spread over them.
    jax.config.update("jax_num_cpu_devices", lanes.num_cores())
    sys.exit(main())
