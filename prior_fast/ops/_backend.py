"""Choosing the backend of an op call."""

import difflib
import os
from collections.abc import Mapping

BACKENDS = ("reference", "triton", "cuda", "cpp", "scipy")
ENVIRONMENT_VARIABLE = "PRIOR_FAST_BACKEND"


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
        ValueError: the name is unknown, the op has no such backend, or that backend can't serve this call.
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
        raise ValueError(f"{op_name}: no backend can serve this call: {_describe(available)}")
    if backend not in BACKENDS:
        nearest = difflib.get_close_matches(str(backend), BACKENDS, n=1)
        hint = f", did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"{op_name}: {source}={backend!r} is no backend{hint} {_describe(available)}")
    if backend not in available:
        raise ValueError(f"{op_name}: {source}={backend!r}: this op has no such backend. {_describe(available)}")
    if available[backend] is not None:
        raise ValueError(f"{op_name}: {source}={backend!r} can't serve this call. {_describe(available)}")
    return backend


def _describe(available: Mapping[str, str | None]) -> str:
    able = [name for name, reason in available.items() if reason is None]
    unable = [f"{name}: {reason}" for name, reason in available.items() if reason is not None]
    return "; ".join([f"can serve: {', '.join(able) or 'none'}", *unable])
