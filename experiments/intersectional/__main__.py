"""The command ``python -m experiments.intersectional``."""

import sys

import jax

from experiments.core import lanes
from experiments.intersectional.experiment import main

if __name__ == "__main__":
    # One device a core: the lanes of a network are spread over them.
    jax.config.update("jax_num_cpu_devices", lanes.num_cores())
    sys.exit(main())
