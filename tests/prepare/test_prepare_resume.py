import errno
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import Interrupted, RunError
from prior_fast.prepare.studies import chunks, pipeline
from prior_fast.prepare.studies.pipeline import prepare_studies
from tests.prepare.mimic_tree import MimicTree, contents, mimic_options, small_tree

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(pipeline, "make_tasks", functools.partial(chunks.make_tasks, size=4))


@pytest.fixture
def tree(tmp_path) -> MimicTree:
    return small_tree(tmp_path / "tree")


def test_a_run_that_failed_goes_on_where_it_was(tree, tmp_path, monkeypatch):
    prepare_studies(mimic_options(images=tree.root, out=tmp_path / "whole"))
    out, done = tmp_path / "out", []
    original = chunks._prepare

    def fail_at_third(task):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(task.index)
        return original(task)

    monkeypatch.setattr(chunks, "_prepare", fail_at_third)
    with pytest.raises(Interrupted, match="start the same command again"):
        prepare_studies(mimic_options(images=tree.root, out=out))
    assert not out.exists()
    assert len(list((tmp_path / "out.partial").glob("chunk-*.bin"))) == 2
    monkeypatch.setattr(chunks, "_prepare", lambda task: done.append(task.index) or original(task))
    prepare_studies(mimic_options(images=tree.root, out=out))
    assert done == [0, 1, 2, 3, 4]
    assert contents(out) == contents(tmp_path / "whole")
    assert not (tmp_path / "out.partial").exists()


def test_a_killed_run_goes_on_and_leaves_no_process(tmp_path):
    tree = small_tree(tmp_path / "tree", studies=200)
    settings = mimic_options(images=tree.root, out=tmp_path / "out")
    script = (
        "import functools, pathlib, time\n"
        "from prior_fast.prepare.studies import chunks, pipeline\n"
        "from tests.prepare.mimic_tree import mimic_options\n"
        "pipeline.make_tasks = functools.partial(chunks.make_tasks, size=4)\n"
        "if __name__ == '__main__':\n"
        f"    tree, out = pathlib.Path({str(tree.root)!r}), pathlib.Path({str(settings.out)!r})\n"
        "    pipeline.prepare_studies(mimic_options(tree, out, workers=2))\n"
    )
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, tmp_path / "script.py"], env=environment, start_new_session=True)
    try:
        partial = tmp_path / "out.partial"
        wait_for(lambda: process.poll() is not None or len(list(partial.glob("chunk-*.bin"))) >= 3)
        assert process.poll() is None
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not settings.out.exists()
    wait_for(lambda: not session_members(process.pid))
    left = {path.name: path.stat().st_mtime_ns for path in partial.glob("chunk-*.bin")}
    assert 3 <= len(left) < 50
    made = []
    prepare_studies(mimic_options(images=tree.root, out=tmp_path / "whole"))
    original = chunks._prepare
    chunks._prepare = lambda task: made.append(task.index) or original(task)
    try:
        prepare_studies(mimic_options(images=tree.root, out=settings.out))
    finally:
        chunks._prepare = original
    assert len(made) == 50 - len(left)
    assert contents(settings.out) == contents(tmp_path / "whole")


def interrupted(*_arguments):
    raise KeyboardInterrupt


def full_disk(*_arguments, **_options):
    raise OSError(errno.ENOSPC, "No space left on device")


def wait_for(condition):
    while not condition():
        time.sleep(0.02)


def session_members(session: int) -> list[int]:
    """Ids of the living processes of a session."""
    members = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, own = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(own) == session and state != "Z":
            members.append(int(entry.name))
    return members


def test_a_changed_input_is_not_mixed_with_old_chunks(tree, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.assemble, "write_dataset", full_disk)
        with pytest.raises(RunError, match="no space is left"):
            prepare_studies(mimic_options(images=tree.root, out=out))
    assert not out.exists()
    tree.report(50_000_000).write_text("\n FINDINGS: A b. C d. E f. G h.\n", encoding="utf-8")
    prepare_studies(mimic_options(images=tree.root, out=out))
    prepare_studies(mimic_options(images=tree.root, out=tmp_path / "whole"))
    assert PreparedDataset.open(out).sentences(0) == ["A b.", "C d.", "E f.", "G h."]
    assert contents(out) == contents(tmp_path / "whole")


def test_a_changed_setting_is_not_mixed_with_old_chunks(tree, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.assemble, "collect", interrupted)
        with pytest.raises(Interrupted, match="stopped"):
            prepare_studies(mimic_options(images=tree.root, out=out))
    prepare_studies(mimic_options(images=tree.root, out=out, min_sentences=6))
    prepare_studies(mimic_options(images=tree.root, out=tmp_path / "whole", min_sentences=6))
    assert PreparedDataset.open(out).sentence_counts.min() == 6
    assert contents(out) == contents(tmp_path / "whole")


def test_a_damaged_chunk_is_made_again(tree, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.assemble, "collect", interrupted)
        with pytest.raises(Interrupted, match="stopped"):
            prepare_studies(mimic_options(images=tree.root, out=out))
    paths = sorted((tmp_path / "out.partial").glob("chunk-*.bin"))
    paths[0].write_bytes(paths[0].read_bytes()[:1000])
    flipped = bytearray(paths[1].read_bytes())
    flipped[5000] ^= 255
    paths[1].write_bytes(flipped)
    prepare_studies(mimic_options(images=tree.root, out=out))
    prepare_studies(mimic_options(images=tree.root, out=tmp_path / "whole"))
    assert contents(out) == contents(tmp_path / "whole")


def test_a_full_disk_is_one_line_and_leaves_nothing(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "write_chunk", full_disk)
    with pytest.raises(
        RunError, match=r"no space is left for .*out \(.* free\): free some, then start the same command"
    ):
        prepare_studies(mimic_options(images=tree.root, out=tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_a_foreign_file_in_the_partial_folder_survives(tree, tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "mine.txt").write_text("keep", encoding="utf-8")
    prepare_studies(mimic_options(images=tree.root, out=tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out.partial").iterdir()] == ["mine.txt"]
