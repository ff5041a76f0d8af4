"""Storage of mixtures of Flax models in one file, without pickle."""

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
# Attributes of a fitted mixture, without their final underscores.
_NUMBERS = ("best_gap", "iterations", "cost", "violation")


def write_fitted(path: Path, fitted: Any) -> None:
    """Writes a mixture with its settings and results, whole or not at all.

    Args:
      path: Path of the file.
      fitted: A fitted :class:`fairjax.mitigation.ExponentiatedGradient`.
    """
    settings = fitted.get_params(deep=False)
    del settings["estimator"]
    if not isinstance(settings["random_state"], int | np.integer | None):
        # A generator's state is not part of the mixture.
        settings["random_state"] = None
    groups = fitted._groups
    stored = {
        "settings": settings,
        "classes": fitted.classes_.tolist(),
        "groups": [groups.columns, groups.named, groups.cells],
        "features": getattr(fitted, "feature_names_in_", np.array([])).tolist(),
        **{name: getattr(fitted, f"{name}_") for name in _NUMBERS},
    }
    leaves = enumerate(jax.tree.leaves(fitted.mixture_))
    # JSON has no type for NumPy's scalars and arrays.
    text = json.dumps({"format": _FORMAT, **stored}, default=lambda x: x.tolist())
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
    """Reads a file of :func:`write_fitted`.

    Args:
      path: Path of the file.
      kind: :class:`fairjax.mitigation.ExponentiatedGradient`.
      learner: The learner that the mixture was fitted with.

    Returns:
      The fitted estimator.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If ``learner`` is not a Flax learner, or the file is damaged, does not
        hold a mixture, or holds models with parameters of other shapes.
    """
    if not isinstance(learner, FlaxClassifier):
        raise ValueError(
            f"estimator must be the FlaxClassifier of the fit; got {learner!r}."
        )
    with _readable(path):
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        stored = json.loads(str(arrays.pop("told")))
        version = stored["format"]
    if version != _FORMAT:
        raise ValueError(
            f"{path} must be of format {_FORMAT}; got {version!r}. Read the file with "
            "the release that wrote it."
        )
    with _readable(path):
        fitted = _restored(kind, learner, stored, arrays)
        weights, chances, center, scale = _leaves(arrays)
        if len(getattr(fitted, "feature_names_in_", center)) != len(center):
            raise ValueError("each feature must have a name; got other numbers.")
    expected = parameter_shapes(learner, len(center))
    shapes = [leaf.shape for leaf in jax.tree.leaves(expected)]
    found = [leaf.shape[1:] for leaf in weights]
    if found != shapes:
        raise ValueError(
            f"estimator must have parameters of the shapes {found}, as in {path}; got "
            f"{shapes}. Give the learner of the fit."
        )
    params = jax.tree.unflatten(jax.tree.structure(expected), weights)
    fitted.mixture_ = Mixture(params, chances, center, scale)
    fitted.chances_, fitted.n_features_in_ = chances, len(center)
    return fitted


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns any failure to read into an error that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(
            f"{path} must hold a saved mixture; got another or a damaged file."
        ) from error


def _restored(kind: Any, learner: Any, stored: dict, arrays: dict) -> Any:
    """Returns the estimator with all attributes but the mixture."""
    settings = stored["settings"]
    settings["costs"] = tuple(settings["costs"])
    fitted = kind(learner, **settings)
    if set(settings) != set(fitted.get_params(deep=False)) - {"estimator"}:
        raise ValueError("settings are missing.")
    fitted.classes_ = np.array(stored["classes"])
    fitted._groups = Groups(*stored["groups"])
    fitted.group_names_ = fitted._groups.names
    if stored["features"]:
        fitted.feature_names_in_ = np.array(stored["features"], dtype=object)
    counts, fitted.multipliers_ = arrays["counts"], arrays["multipliers"]
    groups, classes = len(fitted.group_names_), fitted.classes_.shape
    if counts.shape != (groups, 2, 2) or classes != (2,):
        raise ValueError("counts must be of the groups, and classes must be two.")
    fitted.counts_ = GroupCounts(counts)
    for name in _NUMBERS:
        setattr(fitted, f"{name}_", stored[name])
    return fitted


def _leaves(arrays: dict[str, np.ndarray]) -> tuple[list[np.ndarray], Any, Any, Any]:
    """Returns the models' parameters and probabilities, and the features' scaling."""
    number = sum(name.startswith("leaf_") for name in arrays)
    *weights, chances, center, scale = (arrays[f"leaf_{i}"] for i in range(number))
    if center.ndim != 1 or center.shape != scale.shape or chances.ndim != 1:
        raise ValueError("leaves are missing.")
    if any(leaf.shape[:1] != chances.shape for leaf in weights):
        raise ValueError("each model must have a probability; got other numbers.")
    return weights, chances, center, scale
