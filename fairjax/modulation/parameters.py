"""Which parameters belong to which modality."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import optax
from jaxtyping import Array, Float, PyTree

from fairjax.types import Params

SHARED = "shared"
"""The label of parameters that belong to no modality."""


def modality_labels(
    params: Params,
    modalities: Mapping[str, Sequence[str]],
    *,
    shared: Sequence[str] = (),
) -> PyTree:
    """A tree like the parameters that names the modality of each.

    A parameter's path is its keys joined by ``/``, such as
    ``encoders/labs/blocks/0/kernel``. A modality claims the parameters below the
    paths that it lists.

    Args:
      params: The parameters, or their shapes. For ``nnx.Optimizer``, which updates
        bare arrays, ``nnx.as_pure(nnx.state(model, nnx.Param))``.
      modalities: name -> paths, whole keys from the start: ``encoders/labs`` claims
        ``encoders/labs/bias`` but not ``encoders/labs2/bias``.
      shared: Paths of what belongs to no modality (fusion, classifier, heads).

    Returns:
      A pytree of strings, :data:`SHARED` for what is shared; transformations that
      scale by modality take it, and so does ``optax.partition``.

    Raises:
      ValueError: A parameter that nobody claims, or two do; a path that claims
        nothing; a modality named ``shared``, or without paths.

    Example:
      >>> import jax.numpy as jnp
      >>> from fairjax import modulation
      >>> params = {"encoders": {"labs": jnp.ones(2), "notes": jnp.ones(3)},
      ...           "head": jnp.ones(4)}
      >>> modulation.modality_labels(
      ...     params, {"labs": ["encoders/labs"], "notes": ["encoders/notes"]},
      ...     shared=["head"])
      {'encoders': {'labs': 'labs', 'notes': 'notes'}, 'head': 'shared'}
    """
    if SHARED in modalities:
        raise ValueError(
            f"no modality may be named {SHARED!r}: it names what is shared."
        )
    claims = {**modalities, SHARED: shared}
    for name, paths in claims.items():
        if isinstance(paths, str):
            raise ValueError(f"{name!r} lists paths, [{paths!r}], not one string.")
        if not paths and name != SHARED:
            raise ValueError(f"modality {name!r} claims no paths.")
    listed = [path for paths in claims.values() for path in paths]
    used: Counter[str] = Counter()

    def label(keys: tuple[Any, ...], leaf: Any) -> str:
        del leaf
        name = jax.tree_util.keystr(keys, simple=True, separator="/")
        below = [path for path in listed if _below(name, path)]
        used.update(below)
        owners = [
            owner
            for owner, paths in claims.items()
            if any(_below(name, path) for path in paths)
        ]
        if not owners:
            raise ValueError(
                f"no modality claims parameter {name!r}: list it, or a path above it, "
                "under a modality or under shared=."
            )
        if len(owners) > 1:
            raise ValueError(
                f"parameter {name!r} is claimed twice, by {' and by '.join(owners)}."
            )
        return owners[0]

    labels = jax.tree_util.tree_map_with_path(label, params)
    idle = [path for path in listed if not used[path]]
    if idle:
        raise ValueError(f"path {idle[0]!r} claims no parameter.")
    return labels


def check_labels(labels: PyTree, modalities: Sequence[str], params: Params) -> None:
    """Refuse a label tree that does not fit the parameters or the modalities.

    Args:
      labels: The tree of labels, or a prefix of one.
      modalities: Names.
      params: The parameters.

    Raises:
      ValueError: A label that is no text, or neither a modality nor :data:`SHARED`; a
        modality that no parameter belongs to; a tree that does not fit that of the
        parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> check_labels({"w": "labs"}, ["labs"], {"w": jnp.ones(2)})
      >>> check_labels({"w": "lab"}, ["labs"], {"w": jnp.ones(2)})
      Traceback (most recent call last):
        ...
      ValueError: label 'lab' is neither a modality (labs) nor 'shared'.
    """
    leaves = jax.tree.leaves(labels)
    other = next((leaf for leaf in leaves if not isinstance(leaf, str)), None)
    if other is not None:
        raise ValueError(
            f"labels are names of modalities, not {type(other).__name__}: make them of "
            "the parameters with modality_labels."
        )
    found = Counter(leaves)
    unknown = [label for label in found if label not in (*modalities, SHARED)]
    if unknown:
        raise ValueError(
            f"label {unknown[0]!r} is neither a modality ({', '.join(modalities)}) nor "
            f"{SHARED!r}."
        )
    without = [name for name in modalities if not found[name]]
    if without:
        raise ValueError(f"no parameter belongs to modality {without[0]!r}.")
    try:
        jax.tree.map(lambda *_: None, labels, params)
    except ValueError as error:
        raise ValueError(
            "the labels' tree does not fit that of the parameters: make it of the same "
            f"parameters with modality_labels. {error}"
        ) from error


def map_labelled(
    function: Callable[..., Array],
    labels: PyTree,
    modalities: Sequence[str],
    updates: PyTree,
    *others: PyTree,
) -> PyTree:
    """``function(m, leaf, *leaves)`` of each modality's updates; what is shared stays.

    Args:
      function: Of the modality's number and its leaves, to a leaf.
      labels: From :func:`modality_labels`, or a prefix of it.
      modalities: Names, in the order of their numbers.
      updates: ``[*param]``.
      *others: Trees like the updates.

    Returns:
      Updates ``[*param]``.

    Example:
      >>> import jax.numpy as jnp
      >>> updates, labels = {"w": jnp.ones(2)}, {"w": "labs"}
      >>> map_labelled(lambda m, leaf: leaf + m, labels, ["notes", "labs"], updates)
      {'w': Array([2., 2.], dtype=float32)}
    """
    place = {name: number for number, name in enumerate(modalities)}

    def apply(label: str, tree: PyTree, *trees: PyTree) -> PyTree:
        if label == SHARED or isinstance(tree, optax.MaskedNode):
            return tree
        return jax.tree.map(partial(function, place[label]), tree, *trees)

    return jax.tree.map(apply, labels, updates, *others)


def scale_by_label(
    updates: PyTree,
    labels: PyTree,
    modalities: Sequence[str],
    factors: Float[Array, " M"],
) -> PyTree:
    """Multiplies each modality's updates by its factor; what is shared stays.

    Args:
      updates: ``[*param]``.
      labels: From :func:`modality_labels`, or a prefix of it.
      modalities: Names, in the order of the factors.
      factors: ``[M]``; taken in the type of each leaf.

    Returns:
      Updates ``[*param]``.

    Example:
      >>> import jax.numpy as jnp
      >>> scale_by_label({"w": jnp.ones(2)}, {"w": "labs"}, ["labs"], jnp.array([3.0]))
      {'w': Array([3., 3.], dtype=float32)}
    """

    def scale(number: int, leaf: Array) -> Array:
        return leaf * factors[number].astype(leaf.dtype)

    return map_labelled(scale, labels, modalities, updates)


def _below(name: str, path: str) -> bool:
    path = path.rstrip("/")
    return name == path or name.startswith(path + "/")
