"""Batches loaded and put on the device ahead of the step that takes them."""

import contextlib
import queue
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from fairjax.types import check_whole

# How long closing waits for a batch that is being made, in seconds.
_PATIENCE = 2.0


class _Shared(NamedTuple):
    """What the thread and its consumers share.

    Room is counted apart from the queue, so that nobody ever waits to put something.
    """

    ready: "queue.SimpleQueue[Any]"
    room: threading.Semaphore
    stop: threading.Event


class _End(NamedTuple):
    """What comes after the last batch: nothing, or what the loader failed with."""

    error: BaseException | None


class Prefetched(Iterator[PyTree], contextlib.AbstractContextManager["Prefetched"]):
    """An iterator of batches that a thread makes ready; see :func:`prefetch`.

    It is a context manager too, which closes it.

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
        """Start the thread."""
        self._shared = _Shared(
            queue.SimpleQueue(), threading.Semaphore(size), threading.Event()
        )
        # The thread must not hold this object, whose end is also the thread's. It is a
        # daemon, so that the program's end is not put off before that of this object.
        worker = threading.Thread(
            target=_load,
            args=(loader, self._shared, sharding),
            name="fairjax-prefetch",
            daemon=True,
        )
        self._finish = weakref.finalize(self, _end, worker, self._shared)
        worker.start()

    def __next__(self) -> PyTree:
        """The next batch, waited for if it is not ready."""
        if not self._finish.alive:
            raise StopIteration
        item = self._shared.ready.get()
        if not isinstance(item, _End):
            self._shared.room.release()
            return item
        # For whoever waits, too.
        self._shared.ready.put(_End(None))
        self.close()
        raise StopIteration if item.error is None else item.error

    def close(self) -> None:
        """End the thread, once the batch that it is making is done; lose the others.

        A loader that takes longer than two seconds over that batch is not waited for.
        """
        self._finish()

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def prefetch(
    iterator: Iterable[PyTree], size: int = 2, sharding: Any = None
) -> Prefetched:
    """A loader's batches in their order, made ready while the step before runs.

    A thread takes batches from the loader and puts them on the device. Several threads
    may share the iterator, each batch going to one of them. The thread ends with the
    last batch, or when the iterator is closed or let go of, as by ``break``; then the
    batches that were made ready are lost, and the loader stands up to ``size + 1``
    batches further. Whatever the loader raises is raised where its batch would have
    come, with the loader's traceback.

    Args:
      iterator: Gives batches, pytrees of arrays that it does not write to again: on a
        CPU the device may use them where they are. Only the thread calls it, where
        settings of the caller's own thread, such as ``jax.default_device(...)`` as a
        context, do not hold.
      size: How many batches wait at most, beside the one that is being made.
      sharding: Where a batch goes: what ``jax.device_put`` takes, one for all or a
        pytree of them; None for the default device.

    Returns:
      An iterator of batches whose leaves are ``jax.Array``, with ``close()``.

    Raises:
      ValueError: ``size`` is no whole number of 1 or more.

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
    """What the thread does."""
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
