"""Checkpoints of any pytree of arrays, with Orbax: whole or not there at all."""

from pathlib import Path
from types import TracebackType

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree


class Checkpoints:
    """A folder of checkpoints that a killed run resumes from, to the same bits.

    A checkpoint is written beside its final name and renamed when it is complete, so
    a process killed at any moment leaves the one before untouched.

    Example:
      >>> import tempfile, jax.numpy as jnp
      >>> from fairjax.checkpoint import Checkpoints
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     with Checkpoints(folder) as checkpoints:
      ...         checkpoints.save(3, {"w": jnp.ones(2)})
      ...     with Checkpoints(folder) as checkpoints:
      ...         checkpoints.restore({"w": jnp.zeros(2)})
      (3, {'w': Array([1., 1.], dtype=float32)})
    """

    def __init__(self, folder: str | Path, *, keep: int = 2):
        """Open the folder, making it if need be.

        Args:
          folder: Where the checkpoints lie, one folder for each step.
          keep: How many of the latest are kept.
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
        """Write ``tree`` as the checkpoint of ``step``; returns when it is whole.

        Raises:
          ValueError: A step that is not after the latest checkpoint's.
        """
        if not self._manager.save(step, args=ocp.args.StandardSave(tree)):
            raise ValueError(
                f"step {step} is not after step {self._manager.latest_step()}, whose "
                f"checkpoint lies in {self.folder}: resume from it, or use another "
                "folder."
            )

    def latest(self) -> int | None:
        """The step of the latest whole checkpoint, or None where there is none."""
        return self._manager.latest_step()

    def restore(self, like: PyTree) -> tuple[int, PyTree] | None:
        """The latest step and its tree, or None where there is none.

        Args:
          like: A tree of the same structure, shapes and kinds of number; its shardings
            and widths (float32, bfloat16) are given to what is read.

        Raises:
          ValueError: A checkpoint that cannot be read, or that was saved from another
            tree; the error names its folder, and the first leaf that differs.
        """
        step = self.latest()
        if step is None:
            return None
        path = self.folder / str(step)
        try:
            saved = _leaves(self._manager.item_metadata(step))
        except Exception as error:
            raise _damaged(path) from error
        _check_same(saved, _leaves(like), path)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            tree = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except Exception as error:
            raise _damaged(path) from error
        return step, tree

    def close(self) -> None:
        """Finish what is under way."""
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


def _damaged(path: Path) -> ValueError:
    return ValueError(
        f"the checkpoint {path} cannot be read: it is damaged. Delete that folder to "
        "go on from the checkpoint before it."
    )


def _leaves(tree: PyTree) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Path -> shape and dtype; a key's are those of its data, as they are saved."""
    found = {}
    for path, leaf in jax.tree.leaves_with_path(tree):
        if not hasattr(leaf, "shape"):
            leaf = np.asarray(leaf)
        shape, dtype = tuple(leaf.shape), leaf.dtype
        if jnp.issubdtype(dtype, jax.dtypes.prng_key):
            data = jax.eval_shape(jax.random.key_data, leaf)
            shape, dtype = data.shape, data.dtype
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found[name] = (shape, np.dtype(dtype))
    return found


def _check_same(
    saved: dict[str, tuple[tuple[int, ...], np.dtype]],
    wanted: dict[str, tuple[tuple[int, ...], np.dtype]],
    path: Path,
) -> None:
    """Raise where a checkpoint was saved from another tree."""
    for name in sorted(saved.keys() | wanted.keys()):
        if name not in saved or name not in wanted:
            where = "has no" if name not in saved else "has, beside what is asked for,"
            difference = f"it {where} {name!r}"
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
