"""The command ``python -m experiments.intersectional``."""

from experiments.core import runner
from experiments.intersectional.experiment import main

if __name__ == "__main__":
    runner.start(main)
