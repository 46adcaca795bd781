"""The process group of the processes that one run starts on a machine: they meet at a store of the first one."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed
from torch.distributed import ProcessGroup, TCPStore

HOST = "127.0.0.1"
_INTERFACE = "GLOO_SOCKET_IFNAME"


def open_store() -> TCPStore:
    """The store of a new group. The system chooses its port, so no port is guessed that may be in use."""
    return TCPStore(HOST, 0, is_master=True, wait_for_workers=False)


def come_to(port: int, rank: int) -> TCPStore:
    """The store at `port`, which is told that this rank has come."""
    store = TCPStore(HOST, port, is_master=False)
    store.set(_key(rank), "")
    return store


def all_came(store: TCPStore, count: int) -> bool:
    """Whether all ranks but the first have come to its store."""
    return store.check([_key(rank) for rank in range(1, count)])


def make_group(store: TCPStore, rank: int, count: int) -> ProcessGroup:
    """The gloo group of ranks that have all come; it is torch's default group."""
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=count)
    group = torch.distributed.group.WORLD
    assert group is not None
    return group


def leave_group() -> None:
    """Close the connections to the other ranks; nothing where there are none."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def over_loopback() -> Iterator[None]:
    """A context in which gloo connects over the loopback interface.

    It would otherwise use the interface of the host's name, which a laptop may lose while it trains.
    """
    names = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    if _INTERFACE in os.environ or not names:
        yield
        return
    os.environ[_INTERFACE] = names[0]
    try:
        yield
    finally:
        os.environ.pop(_INTERFACE, None)


def _key(rank: int) -> str:
    return f"prior-fast/came/{rank}"
