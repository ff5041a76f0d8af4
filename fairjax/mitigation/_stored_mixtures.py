"""Mixtures of Flax models in one file, without pickle."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairjax.metrics import GroupCounts
from fairjax.mitigation._sensitive import Groups
from fairjax.mitigation.flax_responses import FlaxClassifier, Mixture, parameter_shapes

_FORMAT = 1
# Attributes of a fitted mixture, less their underscores.
_NUMBERS = ("best_gap", "iterations", "cost", "violation")


def write_fitted(path: Path, fitted: Any) -> None:
    """Write a mixture and what is known of it; the file is whole or not there.

    Args:
      path: Of the file.
      fitted: A fitted :class:`fairjax.mitigation.ExponentiatedGradient`.
    """
    settings = fitted.get_params(deep=False)
    del settings["estimator"]
    if not isinstance(settings["random_state"], int | np.integer | None):
        # A generator's state is not the mixture's.
        settings["random_state"] = None
    groups = fitted._groups
    told = {
        "settings": settings,
        "classes": fitted.classes_.tolist(),
        "groups": [groups.columns, groups.named, groups.cells],
        "features": getattr(fitted, "feature_names_in_", np.array([])).tolist(),
        **{name: getattr(fitted, f"{name}_") for name in _NUMBERS},
    }
    leaves = enumerate(jax.tree.leaves(fitted.mixture_))
    # NumPy's scalars and arrays are not JSON's.
    text = json.dumps({"format": _FORMAT, **told}, default=lambda own: own.tolist())
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=".new-", suffix=".npz", delete=False
    ) as made:
        try:
            np.savez(
                made,
                told=text,
                multipliers=fitted.multipliers_,
                counts=np.asarray(fitted.counts_.counts),
                **{f"leaf_{i}": leaf for i, leaf in leaves},
            )
            made.close()
            os.replace(made.name, path)
        except BaseException:
            os.unlink(made.name)
            raise


def read_fitted(path: Path, kind: Any, learner: FlaxClassifier) -> Any:
    """What :func:`write_fitted` wrote.

    Args:
      path: Of the file.
      kind: :class:`fairjax.mitigation.ExponentiatedGradient`.
      learner: Whose models they are.

    Raises:
      FileNotFoundError: No such file.
      ValueError: No Flax learner; a file that is damaged, of something else, or of
        models with parameters of other shapes.
    """
    if not isinstance(learner, FlaxClassifier):
        raise ValueError(
            f"the learner is the FlaxClassifier of the fit, not {learner!r}."
        )
    with _whole(path):
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        told = json.loads(str(arrays.pop("told")))
        version = told["format"]
    if version != _FORMAT:
        raise ValueError(
            f"{path} is of format {version!r}; this release reads {_FORMAT}."
        )
    with _whole(path):
        fitted = _restored(kind, learner, told, arrays)
        weights, chances, center, scale = _leaves(arrays)
        if len(getattr(fitted, "feature_names_in_", center)) != len(center):
            raise ValueError("there is not a name for each feature.")
    expected = parameter_shapes(learner, len(center))
    shapes = [leaf.shape for leaf in jax.tree.leaves(expected)]
    found = [leaf.shape[1:] for leaf in weights]
    if found != shapes:
        raise ValueError(
            f"{path} holds models with parameters of the shapes {found}; the learner's "
            f"have {shapes}."
        )
    params = jax.tree.unflatten(jax.tree.structure(expected), weights)
    fitted.mixture_ = Mixture(params, chances, center, scale)
    fitted.chances_, fitted.n_features_in_ = chances, len(center)
    return fitted


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Says of whatever goes wrong in reading that the file is to blame."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path} holds no mixture, or a damaged one.") from error


def _restored(kind: Any, learner: Any, told: dict, arrays: dict) -> Any:
    """All but the mixture."""
    settings = told["settings"]
    settings["costs"] = tuple(settings["costs"])
    fitted = kind(learner, **settings)
    if set(settings) != set(fitted.get_params(deep=False)) - {"estimator"}:
        raise ValueError("settings are missing.")
    fitted.classes_ = np.array(told["classes"])
    fitted._groups = Groups(*told["groups"])
    fitted.group_names_ = fitted._groups.names
    if told["features"]:
        fitted.feature_names_in_ = np.array(told["features"], dtype=object)
    counts, fitted.multipliers_ = arrays["counts"], arrays["multipliers"]
    if counts.shape != (len(fitted.group_names_), 2, 2) or fitted.classes_.shape != (
        2,
    ):
        raise ValueError("counts are of other groups, or classes are not two.")
    fitted.counts_ = GroupCounts(counts)
    for name in _NUMBERS:
        setattr(fitted, f"{name}_", told[name])
    return fitted


def _leaves(arrays: dict[str, np.ndarray]) -> tuple[list[np.ndarray], Any, Any, Any]:
    """The models' parameters, their chances, and the features' center and scale."""
    number = sum(name.startswith("leaf_") for name in arrays)
    *weights, chances, center, scale = (arrays[f"leaf_{i}"] for i in range(number))
    if center.ndim != 1 or center.shape != scale.shape or chances.ndim != 1:
        raise ValueError("leaves are missing.")
    if any(leaf.shape[:1] != chances.shape for leaf in weights):
        raise ValueError("there is not a chance for each model.")
    return weights, chances, center, scale
