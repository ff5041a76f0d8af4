"""Batches loaded and put on the device ahead of the step that takes them."""

import queue
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from fairjax.types import check_whole


class _End(NamedTuple):
    """What comes after the last batch: nothing, or what the loader failed with."""

    error: BaseException | None


class Prefetched(Iterator[PyTree]):
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
        self._ready: queue.Queue[Any] = queue.Queue(size)
        stop = threading.Event()
        # The thread must not hold this object, whose end is also the thread's. It is a
        # daemon, so that the program's end is not put off before that of this object.
        worker = threading.Thread(
            target=_load,
            args=(loader, self._ready, stop, sharding),
            name="fairjax-prefetch",
            daemon=True,
        )
        self._finish = weakref.finalize(self, _end, worker, self._ready, stop)
        worker.start()

    def __next__(self) -> PyTree:
        """The next batch, waited for if it is not ready."""
        if not self._finish.alive:
            raise StopIteration
        item = self._ready.get()
        if not isinstance(item, _End):
            return item
        self.close()
        raise StopIteration if item.error is None else item.error

    def close(self) -> None:
        """End the thread, once the batch that it is making is done; lose the others."""
        self._finish()

    def __enter__(self) -> "Prefetched":
        """The iterator itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def prefetch(
    iterator: Iterable[PyTree], size: int = 2, sharding: Any = None
) -> Prefetched:
    """A loader's batches in their order, made ready while the step before runs.

    A thread takes batches from the loader and puts them on the device. It ends with the
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


def _load(
    loader: Iterator[PyTree], ready: queue.Queue[Any], stop: threading.Event, where: Any
) -> None:
    """What the thread does."""
    error = None
    try:
        for batch in loader:
            placed = jax.device_put(batch, where)
            if stop.is_set():
                return
            ready.put(placed)
            if stop.is_set():
                return
    except BaseException as raised:
        error = raised
    ready.put(_End(error))


def _end(
    worker: threading.Thread, ready: queue.Queue[Any], stop: threading.Event
) -> None:
    stop.set()
    # The worker may wait for room; from now on it puts one thing at most.
    while not ready.empty():
        ready.get_nowait()
    worker.join()
