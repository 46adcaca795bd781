"""A disk that gets full at any write of `prepare` or `phantom`: one line, nothing unfinished, and the rerun goes on."""

import errno
from pathlib import Path
from typing import Any

import pytest

from prior_fast.cli.main import main
from prior_fast.errors import UsageError
from prior_fast.phantom import generate
from prior_fast.phantom import mimic as phantom_files
from prior_fast.prepare import chunk_file, finish
from prior_fast.prepare.labelled import write as labelled_write
from prior_fast.prepare.studies import assemble, pipeline, preview
from tests.prepare.labelled.trees import write_csv
from tests.prepare.mimic_tree import contents
from tests.prepare.studies.tables import save_xray, text

STUDIES = (
    *((assemble, name) for name in ("write_npy", "save_tokenizer", "write_text")),
    *((pipeline, name) for name in ("write_info", "write_preview", "write_json")),
    (assemble.pq, "write_table"),
    (chunk_file, "write_chunk"),
)
LABELLED = (
    *((labelled_write, name) for name in ("write_npy", "_write_lists", "write_text", "write_info")),
    (labelled_write.pq, "write_table"),
)


def full(*_arguments: Any, **_options: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    images = tmp_path / "source"
    for number in range(12):
        save_xray(images / f"x{number}.png", number)
    header = ("image", "report", "subject", "Edema")
    write_csv(images / "t.csv", header, [(f"x{n}.png", text(n), f"p{n}", n % 2) for n in range(12)])
    return ["--table", str(images / "t.csv"), "--images", str(images), "--workers", "1"]


def left(tmp_path: Path) -> set[str]:
    return {path.name for path in tmp_path.iterdir()} - {"source", "whole"}


def check(layout: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], patch: Any) -> None:
    """The command fails in one line while `patch` is in force, and then goes on."""
    assert main(["prepare", layout, *words, "--out", str(tmp_path / "whole")]) == 0
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as context:
        patch(context)
        assert main(["prepare", layout, *words, "--out", str(tmp_path / "out")]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "prior-fast:" in line]
    assert "prior-fast: no space is left for /" in line and "free): free some, then start the same command" in line
    assert left(tmp_path) <= {"out.partial"}
    assert not [path for path in tmp_path.glob("out.partial/*") if path.suffix != ".bin"]
    assert main(["prepare", layout, *words, "--out", str(tmp_path / "out")]) == 0
    assert left(tmp_path) == {"out"} and contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize(("module", "name"), STUDIES, ids=lambda value: getattr(value, "__name__", value))
def test_images_with_reports(words, tmp_path, capsys, module, name):
    if name == "write_chunk":
        check("table", words, tmp_path, capsys, lambda patch: patch.setattr("prior_fast.files.atomic._flush", full))
    else:
        check("table", words, tmp_path, capsys, lambda patch: patch.setattr(module, name, full))


@pytest.mark.parametrize(("module", "name"), LABELLED, ids=lambda value: getattr(value, "__name__", value))
def test_images_with_labels(words, tmp_path, capsys, module, name):
    check("labels", words, tmp_path, capsys, lambda patch: patch.setattr(module, name, full))


def test_writers_that_hide_the_systems_number(words, tmp_path, capsys):
    """A write of Pillow and one of tokenizers: their own errors have no number."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / preview.PREVIEW_FILE).symlink_to("/dev/full")
    (tmp_path / "full/x.jpg").symlink_to("/dev/full")
    assert main(["prepare", "table", *words, "--out", str(tmp_path / "out")]) == 0
    dataset = assemble_tokenizer(tmp_path / "out")
    (tmp_path / "full/tokenizer").mkdir()
    (tmp_path / "full/tokenizer/tokenizer.json").symlink_to("/dev/full")
    pixels = phantom_files.np.zeros((64, 64), "uint8")
    for write in (
        lambda: assemble.save_tokenizer(dataset, tmp_path / "full/tokenizer"),
        lambda: phantom_files.write_jpeg(tmp_path / "full/x.jpg", pixels),
        lambda: phantom_files.write_mask(tmp_path / "full/x.jpg", pixels > 0),
    ):
        with pytest.raises(OSError) as caught:
            write()
        assert caught.value.errno == errno.ENOSPC


def assemble_tokenizer(folder: Path) -> Any:
    from prior_fast.data.prepared_dataset import PreparedDataset

    return PreparedDataset.open(folder).tokenizer()


def test_phantom(tmp_path, capsys, monkeypatch):
    words = ["phantom", "--out", str(tmp_path / "a/out"), "--studies", "3", "--size", "64", "--workers", "1"]
    for module, name in ((generate, "write_jpeg"), (generate, "write_tables"), (generate, "write_json")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            assert main(words) == 1
        assert "no space is left for /" in capsys.readouterr().err
        assert not [path for path in tmp_path.rglob("*") if path.name != "a"]
    with monkeypatch.context() as patch:
        patch.setattr("prior_fast.files.space.free_bytes", lambda _: 2000)
        assert main([*words[:-1], "1"]) == 1
    assert "a dataset of this size needs" in capsys.readouterr().err
    assert main(words) == 0


def test_too_little_space_is_noticed_before_work(words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("prior_fast.files.space.free_bytes", lambda _: 1_000_000)
    for layout in ("table", "labels"):
        assert main(["prepare", layout, *words, "--out", str(tmp_path / "out")]) == 1
        assert "preparing 12 images needs 1.2 MB in" in capsys.readouterr().err
        assert not left(tmp_path)


def test_all_images_of_one_gray_level_are_refused(words, tmp_path, capsys):
    from PIL import Image

    for path in (tmp_path / "source").glob("*.png"):
        Image.new("L", (30, 30), 77).save(path)
    for layout, what in (("table", "all training images"), ("labels", "all images")):
        assert main(["prepare", layout, *words, "--out", str(tmp_path / "out")]) == 2
        assert f"prior-fast: {what} are of one gray level (77): nothing can be" in capsys.readouterr().err
        assert left(tmp_path) <= {"out.partial"}
    with pytest.raises(UsageError):
        finish.check_contrast(0.5, 0.0, "x")
    finish.check_contrast(0.5, 1e-9, "x")
