"""What can't be downloaded is refused at once and in one line, and what is downloaded shows its progress."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from prior_fast.console import download, progress
from prior_fast.console.download import NotReachedError, check_answers, find_on_hub, shown_download, within
from prior_fast.radiology.tokenizer import train_tokenizer

Answer = tuple[int, Mapping[str, str], bytes]
Serve = Callable[[Callable[[str], Answer]], str]
NAME = "someone/bert"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, and no proxy between a test and its server."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """serve(answer) starts a server on this machine and returns its address; answer: path -> status, headers, body."""
    servers = []

    def start(answer: Callable[[str], Answer]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, headers, body = answer(self.path)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *words: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def closed() -> str:
    """An address that refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{bound.getsockname()[1]}"


def test_a_server_that_refuses_is_named(closed: str, tmp_path: Path) -> None:
    with pytest.raises(
        NotReachedError, match=rf"{closed} could not be reached \(.*refused.*\).*cache {tmp_path}/cache"
    ):
        find_on_hub(NAME, endpoint=closed)
    with pytest.raises(NotReachedError, match=rf"{closed}/file could not be reached: .*refused"):
        check_answers(f"{closed}/file")


def test_a_server_that_never_answers_is_not_waited_for(silent: str) -> None:
    with pytest.raises(NotReachedError, match=rf"{silent} could not be reached .*HF_HUB_ETAG_TIMEOUT"):
        find_on_hub(NAME, endpoint=silent, seconds=0.2)
    with pytest.raises(NotReachedError, match=f"{silent}/file could not be reached"):
        check_answers(f"{silent}/file", seconds=0.2)


def test_what_no_timeout_of_a_client_bounds_is_bounded() -> None:
    """Such as the search for an address, which may take a minute."""
    ends = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"):
        within(0.2, ends.wait)
    ends.set()
    assert within(60, lambda: 5) == 5
    with pytest.raises(KeyError):
        within(60, lambda: {}["x"])


def test_a_cached_name_is_taken_where_there_is_no_network(closed: str, tmp_path: Path) -> None:
    repository = tmp_path / "cache" / "models--someone--bert"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    (repository / "snapshots" / ("a" * 40)).mkdir(parents=True)
    (repository / "snapshots" / ("a" * 40) / "config.json").write_text("{}")
    found = find_on_hub(NAME, endpoint=closed)
    assert found.local and not found.refusal


@pytest.mark.parametrize(
    ("status", "headers", "refusal"),
    [
        (200, {"ETag": '"1"'}, ""),
        (404, {"X-Error-Code": "EntryNotFound"}, ""),  # a model without this file
        (404, {}, "has no public model of this name (404): check its spelling"),
        (401, {}, "has no public model of this name (401): check its spelling"),
        (403, {"X-Error-Code": "GatedRepo"}, "refuses it (403): accept the model's conditions"),
        (503, {}, ""),  # busy: the download tries again
    ],
)
def test_a_server_that_answers_is_asked_again(status: int, headers: dict[str, str], refusal: str, serve: Serve) -> None:
    """Also where the first answer is no: the network is there, so the loading decides."""
    address = serve(lambda path: (status, headers, b""))
    found = find_on_hub(NAME, endpoint=address, seconds=60)
    assert not found.local
    assert refusal in found.refusal and bool(found.refusal) == bool(refusal)
    assert check_answers(f"{address}/file", seconds=60) == (0 if status == 200 else None)


def test_the_size_of_a_download_is_known(serve: Serve) -> None:
    assert check_answers(serve(lambda path: (200, {}, bytes(2_500_000))), seconds=60) == 2.5


@pytest.mark.parametrize("name", ["no/such/folder", "/no/such/folder", "./bert", "a b"])
def test_what_can_be_no_name_is_asked_of_no_server(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "within", lambda *arguments: pytest.fail("a server was asked"))
    with pytest.raises(NotReachedError, match="no such folder, and it is no name"):
        find_on_hub(name)


def test_a_folder_is_asked_of_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "within", lambda *arguments: pytest.fail("a server was asked"))
    assert find_on_hub(str(tmp_path)).local


def test_the_limit_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_ETAG_TIMEOUT", raising=False)
    assert download.limit_of(None) == download.SECONDS and download.limit_of(2) == 2
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "60")
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 60)
    assert download.limit_of(None) == 60


def test_a_download_shows_its_megabytes() -> None:
    with progress() as bar:
        with shown_download("downloading it")(total=4_000_000, initial=1_000_000, unit="B") as shown:
            shown.update(2_000_000)
            shown.refresh()
            (task,) = bar.tasks
            assert (task.description, task.total, task.completed) == ("downloading it (MB)", 4, 3)
        assert not bar.tasks


LOADS = """
from prior_fast.errors import UsageError
from prior_fast.console import download
from prior_fast.model.pretrained_bert import read_bert
from prior_fast.radiology.tokenizer import load_tokenizer
shown = []
made = download.shown_download
download.shown_download = lambda what: shown.append(what) or made(what)
bert = read_bert("someone/bert")
assert load_tokenizer("someone/bert").get_vocab() == bert.vocabulary
print(len(bert.tensors), *shown)
for load in (read_bert, load_tokenizer):
    try:
        load("someone/misspelt")
    except UsageError as error:
        print(error)
"""


def test_a_name_is_downloaded_without_a_word_of_other_libraries(tmp_path: Path, serve: Serve) -> None:
    folder = tmp_path / "bert"
    tokenizer = train_tokenizer(["no acute findings"] * 2)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)

    def answer(path: str) -> Answer:
        file = folder / path.rpartition("/")[2].partition("?")[0]
        if "/misspelt" in path:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if path.startswith("/api/"):
            return 200, {"Content-Type": "application/json"}, b"[]" if "/tree/" in path else b"{}"
        if not file.is_file():
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        commit = {"X-Repo-Commit": "b" * 40, "ETag": f'"{file.name}"'}
        return 200, commit, file.read_bytes()

    address = serve(answer)
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment = {**clean, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_ETAG_TIMEOUT": "60"}
    done = subprocess.run([sys.executable, "-c", LOADS], env=environment, capture_output=True, text=True, check=False)
    # The project's own progress appears where this takes ten seconds.
    ours = ("text encoder someone/", "tokenizer someone/", "downloading someone/")
    assert "\n".join(line for line in done.stderr.splitlines() if not line.startswith(ours)) == ""
    first, *errors = done.stdout.splitlines()
    tensors = json.loads((folder / "config.json").read_text())["num_hidden_layers"] * 16 + 5
    assert first == f"{tensors} downloading someone/bert"
    assert [error.partition(" ")[0] for error in errors] == ["model.text.weights=someone/misspelt", "--tokenizer"]
    assert all(f"{address} has no public model of this name (404): check its spelling" in error for error in errors)
