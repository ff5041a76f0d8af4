"""Flax NNX models; :func:`functional` and :func:`stateful` make functions of models."""

from fairjax.models.fusion import MultimodalClassifier, MultimodalOutputs
from fairjax.models.mlp import MLP, functional, stateful
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
    "stateful",
    "vit_b16",
]
