"""A process that trains with the one that started it: `python -m prior_fast.training.worker`.

`prior_fast.training.local_processes` starts it. It reads its job from standard input and ends when that is closed.
"""

import argparse
import os
import signal
import socket
import sys
import threading
import traceback

from prior_fast.errors import RunError, UsageError


def main() -> int:
    """Take part in the run; the exit codes are those of `local_processes`."""
    # Ctrl-C reaches every process of a job. Only the first process handles it, and ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parser = argparse.ArgumentParser()
    for name in ("--rank", "--count", "--port"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--memory", type=int, required=True, help="the number of the open file of the shared memory")
    parser.add_argument("--sockets", required=True, help="RANK:NUMBER,..., the open sockets to the other processes")
    args = parser.parse_args()
    line = read_line()
    # Before the imports, which take seconds.
    threading.Thread(target=end_with_input, daemon=True).start()
    from prior_fast.training.local_processes import BROKEN, FAILED, USAGE

    try:
        take_part(line, args)
    except UsageError as error:
        return tell(str(error), USAGE)
    except RunError as error:
        return tell(str(error), FAILED)
    except BaseException:
        return tell(traceback.format_exc(), BROKEN)
    return 0


def take_part(line: str, args: argparse.Namespace) -> None:
    """Train as process `args.rank` of `args.count`, which meet at `args.port`."""
    import torch

    from prior_fast.model.exchange import Exchange
    from prior_fast.training.checkpoint import open_checkpoint
    from prior_fast.training.distributed import Ranks
    from prior_fast.training.job import Job
    from prior_fast.training.local_group import come_to, leave_group, make_group
    from prior_fast.training.pretrain import train_as

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    job = Job.from_json(line)
    checkpoint = None if job.checkpoint is None else open_checkpoint(job.checkpoint)
    rank, count = args.rank, args.count
    sockets = (map(int, pair.split(":")) for pair in args.sockets.split(","))
    others = {other: socket.socket(fileno=number) for other, number in sockets}
    exchange = Exchange(rank, others, args.memory)
    ranks = Ranks(
        rank, count, None, torch.device("cpu"), lambda: make_group(come_to(args.port, rank), rank, count), exchange
    )
    try:
        train_as(ranks, job, checkpoint)
    finally:
        leave_group()


def read_line() -> str:
    """The first line of standard input. Unbuffered, since a thread reads on while Python may end."""
    parts = []
    while part := os.read(0, 1 << 16):
        parts.append(part)
        if part.endswith(b"\n"):
            break
    return b"".join(parts).decode()


def end_with_input() -> None:
    """End this process and those it has started when standard input is closed: the first process has ended."""
    while os.read(0, 1 << 16):
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def tell(message: str, code: int) -> int:
    print(message, file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    # Without Python's own end, which waits for threads: the first process waits for this one.
    os._exit(main())
