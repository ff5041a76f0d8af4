"""Labels that say which parameters belong to which modality."""

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
    """Labels each parameter with its modality.

    A parameter's path is its keys joined by ``/``, such as
    ``encoders/labs/blocks/0/kernel``. A modality claims the parameters below the
    paths that it lists.

    Args:
      params: The parameters, or their shapes. For ``nnx.Optimizer``, which updates
        bare arrays, ``nnx.as_pure(nnx.state(model, nnx.Param))``.
      modalities: name -> paths of whole keys from the root: ``encoders/labs`` claims
        ``encoders/labs/bias`` but not ``encoders/labs2/bias``.
      shared: Paths of parameters that belong to no modality (fusion, classifier,
        heads).

    Returns:
      A pytree of strings like ``params``, with :data:`SHARED` for shared parameters.
      Transformations that scale by modality take this tree, as does
      ``optax.partition``.

    Raises:
      ValueError: If no modality or two modalities claim a parameter, a path claims no
        parameter, or a modality is named ``shared`` or has no paths.

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
            f"a modality must not be named {SHARED!r}, which labels shared parameters; "
            f"got {list(modalities)}. Rename the modality."
        )
    claims = {**modalities, SHARED: shared}
    for name, paths in claims.items():
        if isinstance(paths, str):
            raise ValueError(
                f"{name!r} must have a list of paths; got {paths!r}. Pass [{paths!r}]."
            )
        if not paths and name != SHARED:
            raise ValueError(f"modality {name!r} must have a path; got {paths!r}.")
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
                f"every parameter must be claimed; got {name!r}, which no path claims. "
                "List it, or a path above it, under a modality or under shared=."
            )
        if len(owners) > 1:
            raise ValueError(
                f"a parameter must be claimed once; got {name!r}, claimed by "
                f"{' and by '.join(owners)}. List narrower paths."
            )
        return owners[0]

    labels = jax.tree_util.tree_map_with_path(label, params)
    idle = [path for path in listed if not used[path]]
    if idle:
        raise ValueError(
            f"every path must claim a parameter; got {idle[0]!r}, which claims none. "
            "Write whole keys from the root, joined by '/'."
        )
    return labels


def check_labels(labels: PyTree, modalities: Sequence[str], params: Params) -> None:
    """Refuses a label tree that does not fit the parameters or the modalities.

    Args:
      labels: The tree of labels, or a prefix of one.
      modalities: Names of the modalities.
      params: The parameters.

    Raises:
      ValueError: If a label is neither a modality nor :data:`SHARED`, a modality has no
        parameter, or the labels' tree does not fit the parameters' tree.

    Example:
      >>> import jax.numpy as jnp
      >>> check_labels({"w": "labs"}, ["labs"], {"w": jnp.ones(2)})
      >>> check_labels({"w": "lab"}, ["labs"], {"w": jnp.ones(2)})
      Traceback (most recent call last):
        ...
      ValueError: labels must be modalities (labs) or 'shared'; got 'lab'.
    """
    leaves = jax.tree.leaves(labels)
    other = next((leaf for leaf in leaves if not isinstance(leaf, str)), None)
    if other is not None:
        raise ValueError(
            f"labels must be names of modalities; got {type(other).__name__}. Make "
            "labels from the parameters with modality_labels."
        )
    found = Counter(leaves)
    unknown = [label for label in found if label not in (*modalities, SHARED)]
    if unknown:
        raise ValueError(
            f"labels must be modalities ({', '.join(modalities)}) or {SHARED!r}; "
            f"got {unknown[0]!r}."
        )
    without = [name for name in modalities if not found[name]]
    if without:
        raise ValueError(
            f"every modality must label a parameter; got no label {without[0]!r}."
        )
    try:
        jax.tree.map(lambda *_: None, labels, params)
    except ValueError as error:
        raise ValueError(
            "the labels' tree must fit the parameters' tree, or be a prefix of it; got "
            "another structure. Make the labels from the same parameters with "
            f"modality_labels. {error}"
        ) from error


def map_labelled(
    function: Callable[..., Array],
    labels: PyTree,
    modalities: Sequence[str],
    updates: PyTree,
    *others: PyTree,
) -> PyTree:
    """Applies a function to each modality's updates; shared updates do not change.

    Args:
      function: ``function(m, leaf, *leaves) -> leaf``, for modality number m.
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
    """Multiplies each modality's updates by its factor; shared updates do not change.

    Args:
      updates: ``[*param]``.
      labels: From :func:`modality_labels`, or a prefix of it.
      modalities: Names, in the order of the factors.
      factors: ``[M]``; converted to the type of each leaf.

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
