"""Choosing the backend of an op call."""

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from prior_fast.spelling import nearest

BACKENDS = ("reference", "triton", "cuda", "cpp", "scipy")
ENVIRONMENT_VARIABLE = "PRIOR_FAST_BACKEND"

P = ParamSpec("P")
T = TypeVar("T")


def constant_while_tracing(function: Callable[P, T]) -> Callable[P, T]:
    """Mark a function that torch.compile calls while tracing; the graph keeps its result as a constant.

    Like `torch.compiler.assume_constant_result`, but without importing torch._dynamo, which takes a second.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


class BackendError(ValueError):
    """No backend serves a call as requested. `available` maps each backend to None, or to why it can't serve."""

    def __init__(self, message: str, available: Mapping[str, str | None]) -> None:
        super().__init__(message)
        self.available = dict(available)


def _default_backend() -> str | None:
    return os.environ.get(ENVIRONMENT_VARIABLE) or None


def resolve_backend(op_name: str, backend: str | None, available: Mapping[str, str | None]) -> str:
    """The name of the backend that serves a call. A compiled graph keeps the backend it was compiled with.

    A backend named by the argument must serve, or the call fails. A backend named by PRIOR_FAST_BACKEND must serve in
    the ops that have it. An op without it (most have no "scipy") uses its best one.

    Args:
        op_name: the op's name, for messages.
        backend: the caller's choice; None: PRIOR_FAST_BACKEND or, if that is unset, the first that can serve.
        available: the op's backends, best first; the value is None if it can serve this call, else why it can't.

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


def explain(op: Callable[..., Any], call: Callable[..., Any]) -> dict[str, Any]:
    """Which backend serves `call()`, which calls `op`, and why: `backend`, `why`, and the reasons of those `unable` to.

    Nothing is computed. `call` takes `backend`, as in `partial(ops.segment_mean, x, cu_seqlens)`.

    For an unknown backend, an op raises an error with its backends, best first, and why some can't serve. The op's own
    choice follows the same list.
    """
    if "backend" not in inspect.signature(op).parameters:
        return {"backend": "pytorch", "why": "plain PyTorch on every device", "unable": {}}
    try:
        call(backend="?")
        raise AssertionError("a backend that does not exist was taken")
    except BackendError as error:
        available = error.available
    able = [name for name, reason in available.items() if reason is None]
    unable = {name: reason for name, reason in available.items() if reason is not None}
    asked = os.environ.get(ENVIRONMENT_VARIABLE)
    if asked in able:
        return {"backend": asked, "why": f"{ENVIRONMENT_VARIABLE}={asked} asks for it", "unable": unable}
    if asked and (asked in unable or asked not in BACKENDS):
        why = f"{ENVIRONMENT_VARIABLE}={asked}: {unable.get(asked, 'there is no such backend')}; calls will fail"
        return {"backend": "none", "why": why, "unable": unable}
    why = "; ".join(f"{name}: {reason}" for name, reason in unable.items())
    notes = [
        f"the best of {', '.join(able)}" if len(able) > 1 else "" if why else "the only backend of this op",
        f"it has no {asked} ({ENVIRONMENT_VARIABLE})" if asked else "",
        why,
    ]
    return {"backend": able[0] if able else "none", "why": "; ".join(filter(None, notes)), "unable": unable}


def _describe(available: Mapping[str, str | None]) -> str:
    able = [name for name, reason in available.items() if reason is None]
    unable = [f"{name}: {reason}" for name, reason in available.items() if reason is not None]
    return "; ".join([f"can serve: {', '.join(able) or 'none'}", *unable])
