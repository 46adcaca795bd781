"""Stopped runs of labelled datasets, damaged chunks, changed files, and shards."""

import pytest

from prior_fast.cli.main import main
from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.prepare.labelled import chunks, pipeline
from tests.prepare.labelled.trees import rejected, write_csv
from tests.prepare.mimic_tree import contents
from tests.prepare.studies.tables import save_xray

COUNT = 22


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(pipeline, "make_tasks", lambda *arguments: chunks.make_tasks(*arguments, size=4))


@pytest.fixture
def table(tmp_path):
    for number in range(COUNT):
        save_xray(tmp_path / f"images/x{number}.png", number)
    (tmp_path / "images/x7.png").write_bytes(b"no image")
    boxes = [(3 * n % 40, 2, 9, 9, 1) if n % 2 else ("", "", "", "", 0) for n in range(COUNT)]
    rows = [(f"x{n}.png", *box) for n, box in enumerate(boxes)]
    write_csv(tmp_path / "t.csv", ("image", "x", "y", "width", "height", "TB"), rows)
    return tmp_path / "t.csv"


def run(table, out, *words):
    arguments = ("--table", table, "--images", table.parent / "images", "--out", out, "--workers", 1, *words)
    return main(["prepare", "labels", *map(str, arguments)])


@pytest.fixture
def whole(table, tmp_path):
    assert run(table, tmp_path / "whole") == 0
    return contents(tmp_path / "whole")


def counted(monkeypatch, stop_after=None):
    """Counts the decoded images; raises KeyboardInterrupt after some."""
    seen, decode = [], chunks._decode

    def count(function, candidate):
        if len(seen) == stop_after:
            raise KeyboardInterrupt
        seen.append(candidate.image_id)
        return decode(function, candidate)

    monkeypatch.setattr(chunks, "_decode", count)
    return seen


def test_a_stopped_run_goes_on(table, tmp_path, whole, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        counted(patch, stop_after=11)
        assert run(table, tmp_path / "out") == 130
        assert "stopped; start the same command again to go on from there" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and len(list((tmp_path / "out.partial").glob("decoded-*"))) == 2
    seen = counted(monkeypatch)
    assert run(table, tmp_path / "out") == 0
    assert seen == [f"x{n}.png" for n in range(8, COUNT)]
    assert contents(tmp_path / "out") == whole
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("damage", ["cut", "removed", "changed file"])
def test_only_what_does_not_fit_any_more_is_decoded_again(table, tmp_path, whole, monkeypatch, damage):
    assert run(table, tmp_path / "out", "--shard", "1/1") == 0
    path = sorted((tmp_path / "out.partial").glob("decoded-*"))[2]
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-3000])
    elif damage == "removed":
        path.unlink()
    else:
        save_xray(tmp_path / "images/x9.png", 99, (50, 50))
    seen = counted(monkeypatch)
    assert run(table, tmp_path / "out") == 0
    assert seen == [f"x{n}.png" for n in range(8, 12)]
    assert (contents(tmp_path / "out") == whole) == (damage != "changed file")


def test_shards_give_the_dataset_of_one_run(table, tmp_path, whole, monkeypatch, capsys):
    for shard in ("2/3", "1/3", "3/3"):
        assert run(table, tmp_path / "out", "--shard", shard) == 0
        assert f"Shard {shard} is complete" in capsys.readouterr().out
    seen = counted(monkeypatch)
    assert run(table, tmp_path / "out") == 0 and seen == []
    assert contents(tmp_path / "out") == whole
    assert run(table, tmp_path / "third", "--shard", "4/3") == 2


def test_strict_keeps_what_was_decoded(table, tmp_path, whole, monkeypatch, capsys):
    assert run(table, tmp_path / "out", "--strict") == 1
    assert "--strict: x7.png: no image in a known format" in capsys.readouterr().err
    assert rejected(tmp_path / "whole") == [("x7.png", "no image in a known format")]
    seen = counted(monkeypatch)
    assert run(table, tmp_path / "out") == 0 and "x0.png" not in seen
    assert contents(tmp_path / "out") == whole


def test_a_foreign_file_in_the_partial_folder_survives(table, tmp_path, whole):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial/notes.txt").write_text("mine", encoding="utf-8")
    assert run(table, tmp_path / "out") == 0
    assert [path.name for path in (tmp_path / "out.partial").iterdir()] == ["notes.txt"]


def test_changed_boxes_are_not_mixed_with_what_an_earlier_run_left(table, tmp_path, whole):
    assert run(table, tmp_path / "out", "--shard", "1/1") == 0
    table.write_text(table.read_text(encoding="utf-8").replace(",2,9,9,1", ",3,9,9,1"), encoding="utf-8")
    assert run(table, tmp_path / "out") == 0
    old, new = (LabelledDataset.open(tmp_path / name) for name in ("whole", "out"))
    assert old.boxes(1)[0, 1] * 1.5 == pytest.approx(new.boxes(1)[0, 1])
