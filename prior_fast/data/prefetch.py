"""A thread that runs an iterator some items ahead of its consumer."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_END = object()


def prefetch(items: Iterable[T], depth: int) -> Iterator[T]:
    """Yield the items, which a thread makes at most `depth` ahead.

    An exception in the thread is raised in place of the next item. If the consumer ends early, the thread ends after
    its current item.
    """
    ahead: queue.Queue = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item: object) -> None:
        while not stopped.is_set():
            try:
                ahead.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def make() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
            put(_END)
        except BaseException as error:  # passed to the consumer, whatever its type
            put(error)

    thread = threading.Thread(target=make, name="prior-fast prefetch", daemon=True)
    thread.start()
    try:
        while (item := ahead.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
