"""The command ``python -m experiments.fairgrad``."""

from experiments.core import runner
from experiments.fairgrad.experiment import main

if __name__ == "__main__":
    runner.start(main)
