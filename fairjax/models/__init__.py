"""Flax NNX models, used through :func:`functional` so that the rest sees a pytree."""

from fairjax.models.mlp import MLP, functional

__all__ = ["MLP", "functional"]
