"""Mixtures of Flax models in one file, without pickle."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import jax
import numpy as np

from fairjax.mitigation.flax_responses import (
    FlaxClassifier,
    Mixture,
    parameter_shapes,
)

_FORMAT = 1


def write_mixture(
    path: Path, mixture: Mixture, arrays: Mapping[str, Any], told: Mapping[str, Any]
) -> None:
    """Write a mixture and what is known of it; the file is whole or not there.

    Args:
      path: Of the file.
      mixture: Its models, chances and the features' scale.
      arrays: Name -> array, to be kept with it.
      told: The same for what JSON holds.
    """
    leaves = {
        f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(mixture))
    }
    text = json.dumps({"format": _FORMAT, **told})
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=".new-", suffix=".npz", delete=False
    ) as made:
        try:
            np.savez(made, told=text, **leaves, **arrays)
            made.close()
            os.replace(made.name, path)
        except BaseException:
            os.unlink(made.name)
            raise


def read_mixture(
    path: Path, learner: FlaxClassifier
) -> tuple[Mixture, dict[str, np.ndarray], dict[str, Any]]:
    """What :func:`write_mixture` wrote: the mixture, the arrays and what is told.

    Args:
      path: Of the file.
      learner: Whose models they are.

    Raises:
      FileNotFoundError: No such file.
      ValueError: No Flax learner; a file that is damaged, of something else, or of
        another model.
    """
    if not isinstance(learner, FlaxClassifier):
        raise ValueError(
            f"the learner is the FlaxClassifier of the fit, not {learner!r}."
        )
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        told = json.loads(str(arrays.pop("told")))
        version = told["format"]
    except FileNotFoundError:
        raise
    except (KeyError, TypeError, ValueError, EOFError, OSError, BadZipFile) as error:
        raise ValueError(f"{path} holds no mixture, or a damaged one.") from error
    if version != _FORMAT:
        raise ValueError(
            f"{path} is of format {version!r}; this release reads {_FORMAT}."
        )
    leaves = {name: arrays.pop(name) for name in list(arrays) if name[:5] == "leaf_"}
    *weights, chances, center, scale = (leaves[f"leaf_{i}"] for i in range(len(leaves)))
    expected = parameter_shapes(learner, len(center))
    shapes = [leaf.shape for leaf in jax.tree.leaves(expected)]
    found = [leaf.shape[1:] for leaf in weights]
    if found != shapes:
        raise ValueError(
            f"{path} holds models with parameters of the shapes {found}; the learner's "
            f"have {shapes}."
        )
    params = jax.tree.unflatten(jax.tree.structure(expected), weights)
    return Mixture(params, chances, center, scale), arrays, told
