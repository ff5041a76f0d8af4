"""Flax NNX models; :func:`functional` turns a model into a function of a pytree."""

from fairjax.models.fusion import MultimodalClassifier, MultimodalOutputs
from fairjax.models.mlp import MLP, functional
from fairjax.models.series import SeriesEncoder
from fairjax.models.tabular import TabularEncoder
from fairjax.models.text import TextEncoder
from fairjax.models.transformer import Transformer
from fairjax.models.vit import ViT, vit_b16
from fairjax.models.volume import VolumeEncoder

__all__ = [
    "MLP",
    "MultimodalClassifier",
    "MultimodalOutputs",
    "SeriesEncoder",
    "TabularEncoder",
    "TextEncoder",
    "Transformer",
    "ViT",
    "VolumeEncoder",
    "functional",
    "vit_b16",
]
