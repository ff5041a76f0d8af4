"""Checkpoints of any pytree of arrays, with Orbax: whole or not there at all."""

from pathlib import Path
from types import TracebackType

import jax
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
          like: A tree of the same structure and shapes; its dtypes and shardings are
            given to what is read.

        Raises:
          ValueError: A checkpoint that cannot be read, or that has another structure;
            the error names its folder.
        """
        step = self.latest()
        if step is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            tree = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except Exception as error:
            raise ValueError(
                f"the checkpoint {self.folder / str(step)} cannot be read: it is "
                "damaged, or belongs to another configuration. Delete that folder to "
                "go on from the checkpoint before it."
            ) from error
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
