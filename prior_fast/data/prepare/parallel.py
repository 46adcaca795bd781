"""Preparing chunks in several processes; light, since every worker process imports it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait

from prior_fast.data.prepare.chunks import ChunkResult, ChunkTask, prepare_chunk


def prepare_chunks(tasks: Sequence[ChunkTask], workers: int) -> Iterator[ChunkResult]:
    """The results of the chunks, in their order, as they become ready.

    Args:
        workers: processes; 1 works in the calling process.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        yield from map(prepare_chunk, tasks)
        return
    # "spawn", since a fork copies the threads' locks of whatever the calling process has loaded.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        futures = [executor.submit(prepare_chunk, task) for task in tasks]
        for future in futures:
            yield future.result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    # Ctrl-C reaches every process of the terminal; the parent alone answers it, after the chunks under way.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """End this process when its parent is gone; a pool's worker would wait for its next task forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
