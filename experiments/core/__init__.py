"""Code that all systems share: splits, training, evaluation, storage and commands."""
