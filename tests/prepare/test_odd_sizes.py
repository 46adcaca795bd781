"""The smallest and the oddest sources, and folders in odd places: each works or is refused in one line."""

from pathlib import Path

import pytest

from prior_fast.cli.main import main
from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.files.lock import lock
from prior_fast.prepare.output import claim
from tests.prepare.labelled.trees import write_chexpert, write_csv, write_rsna, write_siim
from tests.prepare.mimic_tree import small_tree
from tests.prepare.studies.tables import save_xray, text


def run(layout: str, out: Path, *words: object) -> int:
    return main(["prepare", layout, *map(str, words), "--out", str(out), "--workers", "1"])


def table(root: Path, count: int, report: str | None = None, split: str = "train") -> tuple[object, ...]:
    for number in range(count):
        save_xray(root / f"images/x{number}.png", number)
    (root / "images").mkdir(parents=True, exist_ok=True)
    rows = [(f"x{n}.png", text(n) if report is None else report, f"p{n}", split, n % 2) for n in range(count)]
    write_csv(root / "t.csv", ("image", "report", "subject", "split", "Edema"), rows)
    return "--table", root / "t.csv", "--images", root / "images"


@pytest.mark.parametrize("count", [1, 2])
def test_one_study(tmp_path, count, capsys):
    words = table(tmp_path, count)
    assert run("table", tmp_path / "a", *words) == 0
    assert "no study is to validate" in capsys.readouterr().err
    dataset = PreparedDataset.open(tmp_path / "a", verify="full")
    assert len(dataset) == count and (tmp_path / "a/preview.png").is_file()
    assert run("labels", tmp_path / "b", *words) == 0
    assert len(LabelledDataset.open(tmp_path / "b", verify="full")) == count


def test_reports_that_are_all_alike(tmp_path):
    assert run("table", tmp_path / "out", *table(tmp_path, 5, report="Normal.")) == 0
    dataset = PreparedDataset.open(tmp_path / "out")
    assert [dataset.sentences(study) for study in range(5)] == [["Normal."]] * 5


def test_a_table_with_a_header_only(tmp_path, capsys):
    words = table(tmp_path, 0)
    for layout in ("table", "labels"):
        assert run(layout, tmp_path / "out", *words) == 2
        assert "has no row below its header" in capsys.readouterr().err
    (tmp_path / "t.csv").write_bytes(b"")
    for layout in ("table", "labels"):
        assert run(layout, tmp_path / "out", *words) == 2
        assert "is empty" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"images", "t.csv"}


def test_files_of_zero_bytes(tmp_path):
    words = table(tmp_path, 3)
    for number in range(3):
        (tmp_path / f"images/x{number}.png").write_bytes(b"")
    for layout in ("table", "labels"):
        assert run(layout, tmp_path / "out", *words) == 2
        # The list of what was left out is all that remains.
        assert {path.name for path in tmp_path.iterdir()} == {"images", "t.csv", "out.rejected.csv"}
    save_xray(tmp_path / "images/x0.png", 0)
    for layout in ("table", "labels"):
        assert run(layout, tmp_path / layout, *words) == 0
    assert run("labels", tmp_path / "out", *words) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"images", "t.csv", "out", "table", "labels"}


def sources(root: Path) -> dict[str, tuple[object, ...]]:
    """Small sources; the last words are the folder of the images."""
    tree = small_tree(root / "mimic", studies=8)
    box = [(f"p{n}", 3, 4, 20, 20, 1) if n % 2 else (f"p{n}", "", "", "", "", 0) for n in range(8)]
    path = "CheXpert-v1.0-small/train/patient0000{}/study1/v.jpg"
    rows = [[path.format(n), "F", 5, "Frontal", "AP", *[float(n % 2)] * 14] for n in range(8)]
    return {
        "mimic": ("--images", tree.root),
        "table": table(root / "table", 8),
        "labels": table(root / "labels", 8),
        "rsna": ("--images", write_rsna(root / "rsna", box)),
        "siim": ("--images", write_siim(root / "siim", [(f"i{n}", "5 20" if n % 2 else "-1") for n in range(8)])),
        "chexpert": ("--images", write_chexpert(root / "chexpert", rows)),
    }


def test_an_output_folder_inside_the_images_or_named_by_a_link(tmp_path):
    for layout, words in sources(tmp_path).items():
        assert run(layout, tmp_path / "whole" / layout, *words) == 0
        inside = Path(str(words[-1])) / "out"
        (tmp_path / f"far-{layout}").mkdir()
        inside.symlink_to(tmp_path / f"far-{layout}")
        assert run(layout, inside, *words) == 0 and inside.is_symlink()
        inside.unlink()
        # Now the images' folder has a dataset in it, which changes nothing.
        (tmp_path / f"far-{layout}").rename(inside)
        for name in ("dataset.json", "manifest.parquet", "images.npy"):
            assert (inside / name).read_bytes() == (tmp_path / "whole" / layout / name).read_bytes()
        assert not [path for path in tmp_path.rglob("*") if path.name.endswith((".partial", ".lock"))]


def test_an_output_folder_that_is_the_source_or_holds_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("prior_fast.prepare.any_table.read_table", None)
    for layout, words in sources(tmp_path).items():
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
        for out in (words[-1], Path(str(words[-1])).parent):
            for more in ((), ("--shard", "1/2")):
                assert run(layout, out, *words, *more) == 2
                assert "is not empty; give a folder that does not exist yet (it holds " in capsys.readouterr().err
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


def test_two_commands_at_once(tmp_path, capsys):
    words = table(tmp_path, 4)
    for layout in ("table", "labels"):
        with claim(tmp_path / "out"):
            for more in ((), ("--shard", "1/2")):
                assert run(layout, tmp_path / "out", *words, *more) == 1
                assert "out is in use by process" in capsys.readouterr().err
    with claim(tmp_path / "out"):
        assert main(["prepare", "merge", "--out", str(tmp_path / "out")]) == 1
        # A dry run writes nothing and waits for nobody.
        assert run("table", tmp_path / "out", *words, "--check", 1) == 0
        assert main(["phantom", "--out", str(tmp_path / "out"), "--studies", "1", "--size", "64"]) == 1
        assert capsys.readouterr().err.count("out is in use by process") == 2
    for layout in ("table", "labels"):
        assert run(layout, tmp_path / layout, *words, "--shard", "1/2") == 0
        with lock(tmp_path / f"{layout}.partial/.shard-1-of-2.lock", "x"):
            assert run(layout, tmp_path / layout, *words, "--shard", "1/2") == 1
            assert "shard 1/2, is in use by process" in capsys.readouterr().err
            assert run(layout, tmp_path / layout, *words, "--shard", "2/2") == 0
            assert run(layout, tmp_path / layout, *words) == 1


def test_a_damaged_record_of_a_shard_stops_only_the_merge(tmp_path, capsys):
    words, partial = table(tmp_path, 8), tmp_path / "out.partial"
    for shard in ("1/2", "2/2"):
        assert run("table", tmp_path / "out", *words, "--shard", shard) == 0
    for damaged in (
        '{"format": 1}',
        "[[[",
        "",
        '{"shard": {"index": "x", "count": null}, "format": "prior-fast-shard-2"}',
    ):
        (partial / "shard-1-of-2.json").write_text(damaged, encoding="utf-8")
        assert main(["prepare", "merge", "--out", str(tmp_path / "out")]) == 2
        assert "is no record of a shard" in capsys.readouterr().err
        for shard in ("2/2", "1/2"):
            assert run("table", tmp_path / "out", *words, "--shard", shard) == 0
    assert main(["prepare", "merge", "--out", str(tmp_path / "out")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"images", "t.csv", "out"}


@pytest.mark.parametrize("value", ["nan", "inf", "1e400", "-1e400", "x", "1" * 400, "1e308"])
def test_numbers_of_boxes(tmp_path, value, capsys):
    """Boxes that are no numbers end the command; those that are not finite are dropped."""
    root = tmp_path / "vindr"
    for number in range(4):
        save_xray(root / f"train/i{number}.png", number)
    header = ("image_id", "class_name", "rad_id", "x_min", "y_min", "x_max", "y_max")
    rows = [(f"i{n}", "Edema", f"R{r}", 1, 1, value if n == 1 else 20, 20) for n in range(4) for r in (1, 2)]
    write_csv(root / "train.csv", header, rows)
    code = run("vindr", tmp_path / "out", "--images", root)
    assert code == (2 if value == "x" else 0)
    if code:
        assert "line 4: the box is 1, 1, x, 20, not four numbers" in capsys.readouterr().err


def test_seeds_shards_and_numbers_out_of_range(tmp_path, capsys):
    words = table(tmp_path, 2)
    assert run("table", tmp_path / "out", *words, "--shard", f"1/{'9' * 5000}") == 2
    assert run("chexpert5x200", tmp_path / "out", "--images", tmp_path, "--seed", 2**32) == 2
    assert main(["phantom", "--out", str(tmp_path / "out"), "--studies", "10000001"]) == 2
    shown = capsys.readouterr().err
    assert "--shard must be I/N" in shown and "give a seed from 0" in shown and "give 1 to 10000000" in shown
    assert not (tmp_path / "out").exists()
