"""Keeps other libraries' progress bars and notes out of a command's output, through their own switches."""

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """transformers and huggingface_hub show no progress bar and no message inside; their errors are still raised."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging as models  # slow to import, so late

    levels = hub.get_verbosity(), models.get_verbosity()
    hub_bars, model_bars = not are_progress_bars_disabled(), models.is_progress_bar_enabled()
    hub.set_verbosity_error()
    models.set_verbosity_error()
    with warnings.catch_warnings():
        # It warns if HF_HUB_DISABLE_PROGRESS_BARS=0 asks for bars; the variable then decides.
        warnings.simplefilter("ignore")
        models.disable_progress_bar()
        disable_progress_bars()
    try:
        yield
    finally:
        hub.set_verbosity(levels[0])
        models.set_verbosity(levels[1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if model_bars:
                models.enable_progress_bar()
            # transformers' switch also turns huggingface_hub's.
            (enable_progress_bars if hub_bars else disable_progress_bars)()


@contextmanager
def quiet_prints() -> Iterator[None]:
    """Nothing that a library prints to standard output inside is shown."""
    with redirect_stdout(io.StringIO()):
        yield


@contextmanager
def quiet_compiler() -> Iterator[None]:
    """torch.compile's warnings about torch itself, and about a compiler for GPUs on a CPU, are not shown inside."""
    extensions = logging.getLogger("torch.utils.cpp_extension")
    level = extensions.level
    extensions.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"torch\..*")
            yield
    finally:
        extensions.setLevel(level)


def quiet_profiler() -> None:
    """torch's profiler writes no lines of its own (`USDT:`, `gpuGetDeviceCount failed`) from its first use on.

    KINETO_LOG_LEVEL is the lowest level that it writes. A level that the user has set stays.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
