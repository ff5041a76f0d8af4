"""Atomic checkpoints of any pytree of arrays, written with Orbax."""

from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array, PyTree


class Checkpoints:
    """A folder of checkpoints, from which a killed run resumes bit for bit.

    A checkpoint is written under a temporary name and renamed when it is complete. A
    process killed at any moment therefore leaves the previous checkpoint untouched.

    Example:
      >>> import tempfile, jax.numpy as jnp
      >>> from fairjax.checkpoint import Checkpoints
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     checkpoints = Checkpoints(folder)
      ...     checkpoints.save(3, {"w": jnp.ones(2)})
      ...     checkpoints.close()
      ...     with Checkpoints(folder) as checkpoints:
      ...         checkpoints.latest(), checkpoints.restore({"w": jnp.zeros(2)})
      (3, (3, {'w': Array([1., 1.], dtype=float32)}))
    """

    def __init__(self, folder: str | Path, *, keep: int = 2):
        """Opens the folder, and makes it if it does not exist.

        Args:
          folder: The folder of the checkpoints, with one folder for each step.
          keep: Number of the latest checkpoints to keep.
        """
        self.folder = Path(folder).absolute()
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, enable_async_checkpointing=False
            ),
            item_handlers=ocp.StandardCheckpointHandler(),
        )

    def save(self, step: int, tree: PyTree) -> None:
        """Writes ``tree`` as the checkpoint of ``step``; returns when it is complete.

        Raises:
          ValueError: The step is not after the latest checkpoint's step; two leaves
            have the same path, when its parts are joined by "/"; or an array is empty.
        """
        named = _named(tree)
        if len(named) < len(jax.tree.leaves(tree)):
            raise ValueError(
                "the paths of the tree's leaves must differ when their parts are "
                f"joined by '/'; got {len(jax.tree.leaves(tree)) - len(named)} twice. "
                "Rename keys that hold '/'."
            )
        if empty := [name for name, leaf in named.items() if not np.size(leaf)]:
            raise ValueError(
                f"arrays must not be empty; got {', '.join(empty)}. Leave them out of "
                "what is saved."
            )
        if not self._manager.save(step, args=ocp.args.StandardSave(tree)):
            raise ValueError(
                f"step {step} is not after step {self._manager.latest_step()}, whose "
                f"checkpoint lies in {self.folder}: resume from it, or use another "
                "folder."
            )

    def latest(self) -> int | None:
        """Returns the step of the latest complete checkpoint, or None without one."""
        return self._manager.latest_step()

    def restore(self, like: PyTree) -> tuple[int, PyTree] | None:
        """Returns the latest step and its tree, or None without a checkpoint.

        Args:
          like: A tree of the same structure, shapes and kinds of number. The restored
            arrays get its shardings and its dtypes, such as float32 or bfloat16.

        Raises:
          ValueError: The checkpoint cannot be read, or was saved from another tree.
            The error names its folder, and the first leaf that differs.
        """
        step = self.latest()
        if step is None:
            return None
        path = self.folder / str(step)
        try:
            metadata = self._manager.item_metadata(step)
            saved = _leaves(metadata)
        except Exception as error:
            raise _damaged(path) from error
        _check_same(saved, _leaves(like), path)
        wanted = _named(jax.tree.map(ocp.utils.to_shape_dtype_struct, like))
        # Empty fields that the tree has gained since then are not in the checkpoint.
        names = list(_named(metadata))
        item = jax.tree.structure(metadata).unflatten(wanted[name] for name in names)
        try:
            found = self._manager.restore(step, args=ocp.args.StandardRestore(item))
        except Exception as error:
            raise _damaged(path) from error
        leaves = _named(found)
        for name, leaf in _named(like).items():
            if isinstance(leaf, jax.Array) and not leaf.committed:
                # As free as before to go to the devices of a mesh.
                leaves[name] = _uncommitted(leaves[name])
        return step, jax.tree.structure(like).unflatten(leaves[name] for name in wanted)

    def close(self) -> None:
        """Finishes pending writes and closes the folder."""
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the folder."""
        self.close()


def _uncommitted(leaf: Array) -> Array:
    """Returns an array that computations may move to other devices."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = jnp.array(np.asarray(jax.random.key_data(leaf)))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return jnp.array(np.asarray(leaf))


def _damaged(path: Path) -> ValueError:
    return ValueError(
        f"the checkpoint {path} cannot be read: it is damaged. Delete that folder to "
        "go on from the checkpoint before it."
    )


def _leaves(tree: PyTree) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Returns path -> shape and dtype, which for a random key describe its data."""
    leaves = {}
    for name, leaf in _named(tree).items():
        if not hasattr(leaf, "shape"):
            leaf = np.asarray(leaf)
        shape, dtype = tuple(leaf.shape), leaf.dtype
        if jnp.issubdtype(dtype, jax.dtypes.prng_key):
            data = jax.eval_shape(jax.random.key_data, leaf)
            shape, dtype = data.shape, data.dtype
        leaves[name] = (shape, np.dtype(dtype))
    return leaves


def _named(tree: PyTree) -> dict[str, Any]:
    """Returns path -> leaf."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _check_same(
    saved: dict[str, tuple[tuple[int, ...], np.dtype]],
    wanted: dict[str, tuple[tuple[int, ...], np.dtype]],
    path: Path,
) -> None:
    """Checks that a checkpoint was saved from a tree like the one wanted."""
    for name in sorted(saved.keys() | wanted.keys()):
        if name not in saved or name not in wanted:
            difference = f"it {'also has' if name in saved else 'has no'} {name!r}"
        elif saved[name][0] != wanted[name][0]:
            shapes = f"{saved[name][0]}, not {wanted[name][0]}"
            difference = f"its {name!r} has the shape {shapes}"
        elif _kind(saved[name][1]) != _kind(wanted[name][1]):
            difference = f"its {name!r} is {saved[name][1]}, not {wanted[name][1]}"
        else:
            continue
        raise ValueError(
            f"the checkpoint {path} belongs to another configuration: {difference}. "
            "Resume with the configuration that it was saved with, or use another "
            "folder."
        )


def _kind(dtype: np.dtype) -> type:
    for kind in (jnp.bool_, jnp.integer, jnp.floating):
        if jnp.issubdtype(dtype, kind):
            return kind
    return jnp.generic
