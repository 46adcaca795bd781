"""Choosing the backend of an op call."""

import os
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from prior_fast.spelling import nearest

BACKENDS = ("reference", "triton", "cuda", "cpp", "scipy")
ENVIRONMENT_VARIABLE = "PRIOR_FAST_BACKEND"

P = ParamSpec("P")
T = TypeVar("T")


def constant_while_tracing(function: Callable[P, T]) -> Callable[P, T]:
    """A function that torch.compile runs while it traces, and whose result the graph keeps.

    It is `torch.compiler.assume_constant_result` without its import of torch._dynamo, which takes a second.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


class BackendError(ValueError):
    """No backend serves a call as it is asked for; `available` tells which could, and why the others can't."""

    def __init__(self, message: str, available: Mapping[str, str | None]) -> None:
        super().__init__(message)
        self.available = dict(available)


def _default_backend() -> str | None:
    return os.environ.get(ENVIRONMENT_VARIABLE) or None


def resolve_backend(op_name: str, backend: str | None, available: Mapping[str, str | None]) -> str:
    """The name of the backend that serves a call. A compiled graph keeps the one it was compiled with.

    A backend asked for by the argument must serve, or the call fails. One asked for by PRIOR_FAST_BACKEND must serve
    in the ops that have it; an op without it (most have no "scipy") takes its best one.

    Args:
        op_name: the op's name, for messages.
        backend: the caller's choice; None leaves it to PRIOR_FAST_BACKEND, and that to the order of `available`.
        available: the op's backends, best first; the value is None where it can serve this call, else why it can't.

    Raises:
        BackendError: the name is unknown, the op has no such backend, or that backend can't serve this call.
    """
    source = "backend"
    if backend is None:
        source = ENVIRONMENT_VARIABLE
        backend = _default_backend()
        if backend in BACKENDS and backend not in available:
            backend = None
    if backend is None:
        for name, reason in available.items():
            if reason is None:
                return name
        raise BackendError(f"{op_name}: no backend can serve this call: {_describe(available)}", available)
    if backend not in BACKENDS:
        hint = nearest(str(backend), BACKENDS) or ";"
        raise BackendError(f"{op_name}: {source}={backend!r} is no backend{hint} {_describe(available)}", available)
    if backend not in available:
        message = f"{op_name}: {source}={backend!r}: this op has no such backend. {_describe(available)}"
        raise BackendError(message, available)
    if available[backend] is not None:
        message = f"{op_name}: {source}={backend!r} can't serve this call. {_describe(available)}"
        raise BackendError(message, available)
    return backend


def _describe(available: Mapping[str, str | None]) -> str:
    able = [name for name, reason in available.items() if reason is None]
    unable = [f"{name}: {reason}" for name, reason in available.items() if reason is not None]
    return "; ".join([f"can serve: {', '.join(able) or 'none'}", *unable])
