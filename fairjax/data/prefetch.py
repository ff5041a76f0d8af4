"""Prefetching: batches are loaded and put on the device ahead of their step."""

import contextlib
import queue
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from fairjax.types import check_whole

# The time that closing waits for a batch in progress, in seconds.
_PATIENCE = 2.0


class _Shared(NamedTuple):
    """The state shared by the thread and its consumers.

    A semaphore counts the room of the queue, so that putting an item never blocks.
    """

    ready: "queue.SimpleQueue[Any]"
    room: threading.Semaphore
    stop: threading.Event


class _End(NamedTuple):
    """The item after the last batch, with the loader's error or None."""

    error: BaseException | None


class Prefetched(Iterator[PyTree], contextlib.AbstractContextManager["Prefetched"]):
    """An iterator of batches that a thread prepares; see :func:`prefetch`.

    The iterator is a context manager that closes itself.

    Example:
      >>> import itertools
      >>> import numpy as np
      >>> from fairjax.data.prefetch import prefetch
      >>> endless = (np.full(2, i) for i in itertools.count())
      >>> with prefetch(endless) as batches:
      ...     print(next(batches), next(batches))
      [0 0] [1 1]
      >>> list(batches)
      []
    """

    def __init__(self, loader: Iterator[PyTree], size: int, sharding: Any):
        """Starts the thread."""
        self._shared = _Shared(
            queue.SimpleQueue(), threading.Semaphore(size), threading.Event()
        )
        # The thread must not hold a reference to this object, because the thread ends
        # with it. A daemon thread does not delay the end of the program.
        worker = threading.Thread(
            target=_load,
            args=(loader, self._shared, sharding),
            name="fairjax-prefetch",
            daemon=True,
        )
        self._finish = weakref.finalize(self, _end, worker, self._shared)
        worker.start()

    def __next__(self) -> PyTree:
        """Returns the next batch, after waiting if necessary."""
        if not self._finish.alive:
            raise StopIteration
        item = self._shared.ready.get()
        if not isinstance(item, _End):
            self._shared.room.release()
            return item
        # Other waiting consumers end too.
        self._shared.ready.put(_End(None))
        self.close()
        raise StopIteration if item.error is None else item.error

    def close(self) -> None:
        """Ends the thread after the batch in progress, and drops prepared batches.

        Closing waits at most two seconds for the batch in progress.
        """
        self._finish()

    def __exit__(self, *_: object) -> None:
        """Closes the iterator."""
        self.close()


def prefetch(
    iterator: Iterable[PyTree], size: int = 2, sharding: Any = None
) -> Prefetched:
    """Returns a loader's batches in order, prepared while the previous step runs.

    A thread takes batches from the loader and puts them on the device. Several threads
    may share the iterator; each batch goes to one thread. The loading thread ends after
    the last batch, or when the iterator is closed or garbage-collected, as after
    ``break``. Prepared batches are then lost, and the loader is up to ``size + 1``
    batches ahead. An error of the loader is raised in place of its batch, with the
    loader's traceback.

    Args:
      iterator: An iterable of batches, pytrees of arrays. The loader must not write to
        these arrays again, because on a CPU the device may use their memory. Only the
        thread calls the iterable, so settings of the caller's thread, such as the
        context ``jax.default_device(...)``, do not apply.
      size: The most batches that wait, besides the batch in progress.
      sharding: The placement of a batch, as for ``jax.device_put``: one for all arrays,
        or a pytree; None for the default device.

    Returns:
      An iterator of batches whose leaves are ``jax.Array``, with ``close()``.

    Raises:
      ValueError: If ``size`` is not an integer of 1 or more.

    Example:
      >>> import numpy as np
      >>> from fairjax.data.prefetch import prefetch
      >>> loader = ({"x": np.full(2, i)} for i in range(3))
      >>> for batch in prefetch(loader):
      ...     print(batch["x"])
      [0 0]
      [1 1]
      [2 2]
    """
    check_whole("size", size)
    return Prefetched(iter(iterator), size, sharding)


def _load(loader: Iterator[PyTree], shared: _Shared, where: Any) -> None:
    """Loads batches to the device, in the thread."""
    error = None
    try:
        for batch in loader:
            placed = jax.device_put(batch, where)
            shared.room.acquire()
            if shared.stop.is_set():
                return
            shared.ready.put(placed)
    except BaseException as raised:
        error = raised
    shared.ready.put(_End(None if shared.stop.is_set() else error))


def _end(worker: threading.Thread, shared: _Shared) -> None:
    shared.stop.set()
    shared.room.release()
    with contextlib.suppress(queue.Empty):
        while True:
            shared.ready.get_nowait()
    shared.ready.put(_End(None))
    if worker is not threading.current_thread():
        worker.join(_PATIENCE)
