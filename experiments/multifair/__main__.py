"""The command ``python -m experiments.multifair``."""

from experiments.core import runner
from experiments.multifair.experiment import main

if __name__ == "__main__":
    runner.start(main)
