"""Running a function in worker processes, which end when their parent ends. Every worker imports this module."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cores() -> int:
    """The cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def parallel_map(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, chunk: int = 1
) -> Iterator[Result]:
    """Yield `function` of each item, in order, as the results become ready.

    Args:
        workers: number of processes; 1 works in the calling process.
        chunk: number of items that a process takes at a time.

    Raises:
        BrokenProcessPool: a worker process died.
    """
    workers = min(workers, -(-len(items) // chunk))
    if workers <= 1:
        yield from map(function, items)
        return
    # "spawn", because a fork would copy the locks of threads that the calling process has started.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield from executor.map(function, items, chunksize=chunk)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    # Ctrl-C reaches every process of the terminal, and a scheduler's signal every process of the job. Only the parent
    # handles them, after the current work.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """End this process when its parent ends. Otherwise a pool's worker would wait for its next task forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
