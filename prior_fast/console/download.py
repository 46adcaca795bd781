"""Downloads of other people's weights: whether a server can be reached, in seconds, and the progress.

The libraries that download wait and try again for up to a minute where there is no network. Here one short question
comes first. It goes the way of the download: through the proxies and to the endpoint that the environment names.
"""

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from prior_fast.console import busy

# Seconds in which a server must answer, unless HF_HUB_ETAG_TIMEOUT says another number.
SECONDS = 5.0
LIMIT_VARIABLE = "HF_HUB_ETAG_TIMEOUT"
MEGABYTE = 1e6
# A file that nearly every model has; its absence is an answer too.
ASKED = "config.json"
# The file of a model's weights, in the order of transformers' preference.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
T = TypeVar("T")


class NotReachedError(Exception):
    """The message says what could not be found or reached, and where a user can change that."""


@dataclass(frozen=True)
class HubName:
    """Where transformers finds what a name stands for.

    Attributes:
        name: a folder, or a name on Hugging Face.
        local: nothing is asked of the network: it is a folder, or in the cache of a machine without network.
        refusal: what the server answered instead of a model, for the message if loading fails; "" if nothing.
    """

    name: str
    local: bool
    refusal: str = ""

    def download_weights(self) -> None:
        """Download the model's weights into the cache, if they are not there, and show the progress.

        Errors are left to the loading that follows, which finds weights of other names too.
        """
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        if self.local or self.refusal:
            return
        for file in WEIGHT_FILES:
            try:
                hf_hub_download(self.name, file, tqdm_class=shown_download(f"downloading {self.name}"))
            except EntryNotFoundError:
                continue
            return


def find_on_hub(name: str, *, endpoint: str | None = None, seconds: float | None = None) -> HubName:
    """Find out in seconds whether a folder or a name on Hugging Face can be loaded.

    Args:
        endpoint: the server; None: that of HF_ENDPOINT.
        seconds: how long it may take to answer; None: HF_HUB_ETAG_TIMEOUT, by default 5.

    Raises:
        NotReachedError: it is no folder and can't be a name, or the server does not answer and the cache does not have
            the name.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if Path(name).is_dir():
        return HubName(name, local=True)
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise NotReachedError("there is no such folder, and it is no name on Hugging Face") from None
    server = endpoint or constants.ENDPOINT
    limit = limit_of(seconds)
    try:
        url = hf_hub_url(name, ASKED, endpoint=server)
        within(limit, lambda: get_hf_file_metadata(url, timeout=limit, endpoint=server))
    except EntryNotFoundError:
        return HubName(name, local=False)
    except HfHubHTTPError as error:
        # The server is there. What it refuses is asked again by the loading, which may know another way.
        return HubName(name, local=False, refusal=_refusal(server, error.response.status_code))
    except Exception as error:  # the client and the system each raise their own types
        if _is_cached(name):
            return HubName(name, local=True)
        raise NotReachedError(
            f"{server} could not be reached ({reason_of(error)}), and the cache {constants.HF_HUB_CACHE} has no "
            f"{name}; HF_HOME names another cache, {LIMIT_VARIABLE} more seconds for a slow network"
        ) from None
    return HubName(name, local=False)


def check_answers(url: str, seconds: float | None = None) -> float | None:
    """The megabytes of the file at `url`, None if the server does not say.

    Raises:
        NotReachedError: it does not answer within `seconds` (None: as in `find_on_hub`).
    """
    limit = limit_of(seconds)
    request = urllib.request.Request(url, method="HEAD")

    def ask() -> str | None:
        with urllib.request.urlopen(request, timeout=limit) as answer:
            size: str | None = answer.headers.get("Content-Length")
            return size

    try:
        size = within(limit, ask)
    except urllib.error.HTTPError:  # the server is there; the download will say what it refuses
        return None
    except Exception as error:  # urllib, http.client and the system each raise their own types
        reason = reason_of(error)
        raise NotReachedError(
            f"{url} could not be reached: {reason}; {LIMIT_VARIABLE} gives it more seconds in a slow network"
        ) from None
    return int(size) / MEGABYTE if size and size.isdigit() else None


def limit_of(seconds: float | None) -> float:
    """`seconds`, or where they are None those of the environment."""
    from huggingface_hub import constants

    if seconds is not None:
        return seconds
    return float(constants.HF_HUB_ETAG_TIMEOUT) if os.environ.get(LIMIT_VARIABLE) else SECONDS


def within(seconds: float, call: Callable[[], T]) -> T:
    """call(), in a thread, since no timeout of a client bounds the search for a server's address.

    Raises:
        TimeoutError: it takes longer; the thread is left behind.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="question", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return results[0]


def reason_of(error: BaseException) -> str:
    """The first line of an error's message, or its type."""
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        error = error.reason if isinstance(error.reason, BaseException) else error
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def shown_download(what: str) -> type:
    """A class in the place of tqdm's bar that shows a download as the project's own progress, in megabytes."""
    from tqdm import tqdm

    class Shown(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            self.told = 0.0
            self.open = ExitStack()
            self.advance: Callable[[float], None] | None = None
            # Without a file and with `disable` tqdm counts nothing.
            super().__init__(*args, **{**options, "disable": False, "leave": False})

        def display(self, msg: str | None = None, pos: int | None = None) -> bool:
            if self.advance is None:
                total = self.total / MEGABYTE if self.total else None
                self.advance = self.open.enter_context(busy(f"{what} (MB)", total))
            done = self.n / MEGABYTE
            self.advance(done - self.told)
            self.told = done
            return True

        def clear(self, *args: Any, **options: Any) -> None:
            """Nothing of tqdm's is on the screen."""

        def close(self) -> None:
            super().close()
            self.open.close()

    return Shown


def _is_cached(name: str) -> bool:
    """Whether the cache has a snapshot of a name."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot_download(name, local_files_only=True)
    except LocalEntryNotFoundError:
        return False
    return True


def _refusal(server: str, status: int) -> str:
    """What a status of HTTP means for a user; "" for one that may pass, such as that of a busy server."""
    if status in (401, 404):
        return f"{server} has no public model of this name ({status}): check its spelling; HF_TOKEN opens a private one"
    if status == 403:
        return f"{server} refuses it ({status}): accept the model's conditions on its page, and set HF_TOKEN"
    return ""
