"""The limit of pixels: the same for every reader, set by `--max-image-pixels`, and a part of a chunk's fingerprint."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prior_fast.cli.main import main
from prior_fast.errors import UsageError
from prior_fast.radiology.limits import MAX_PIXELS, byte_limit, check_pixels, limited_pixels, parse_pixels, pixel_limit
from prior_fast.radiology.masks import read_mask
from prior_fast.radiology.xray import UnreadableImage, read_xray, to_square
from tests.prepare.mimic_tree import MimicTree
from tests.prepare.studies.tables import save_xray
from tests.torture.images.seeds import PIXELS, seeds


@pytest.mark.parametrize(
    ("text", "pixels"), [("1", 1), ("64000000", 64_000_000), ("64M", 64_000_000), ("5k", 5000), (" 30m ", 30_000_000)]
)
def test_numbers_and_their_suffixes(text: str, pixels: int) -> None:
    assert parse_pixels(text) == pixels


@pytest.mark.parametrize("text", ["0", "", "-5", "1.5M", "64MB", "1e6", "200M", "9" * 30])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--max-image-pixels must be a number from 1 to 178956970"):
        parse_pixels(text)


def test_every_format_has_the_same_limit(tmp_path: Path) -> None:
    count = PIXELS.size
    for kind, data in seeds().items():
        (tmp_path / "a").write_bytes(data)
        with limited_pixels(count):
            read_xray(tmp_path / "a")
        for read in (read_xray, read_mask):
            with limited_pixels(count - 1), pytest.raises(UnreadableImage) as caught:
                read(tmp_path / "a")
            assert (
                str(caught.value) == f"72x48 pixels are more than {count - 1} (the limit that --max-image-pixels sets)"
            ), kind
    with limited_pixels(count - 1), pytest.raises(UnreadableImage, match="72x48 pixels are more than"):
        to_square(Image.fromarray(PIXELS))
    assert pixel_limit() == MAX_PIXELS


def test_real_sizes_fit_and_bytes_have_a_limit_too() -> None:
    for width, height in ((4300, 5000), (4728, 5928), (7999, 8000)):
        check_pixels(width, height, 4)
    assert byte_limit() == 4 * MAX_PIXELS
    with pytest.raises(UnreadableImage, match="8000x8000 pixels need 512000000 bytes, more than 256000000"):
        check_pixels(8000, 8000, 8)
    with limited_pixels(1000):
        check_pixels(10, 100, 8)


def left_out(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.reader(file) if "max-image-pixels" in " ".join(row)]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_option_reaches_the_workers_of_studies(workers: str, tmp_path: Path) -> None:
    tree = MimicTree(tmp_path / "raw")
    for number in range(70):  # more than a chunk, so that two workers work
        tree.add(50_000_000 + number, size=(60, 48) if number != 3 else (100, 90))
    words = ["prepare", "mimic", "--images", str(tree.write()), "--workers", workers]
    assert main([*words, "--out", str(tmp_path / "a"), "--max-image-pixels", "5K"]) == 0
    (row,) = left_out(tmp_path / "a/rejected.csv")[:1]
    assert "100x90 pixels are more than 5000" in " ".join(row)
    # The dataset with another limit is another one.
    assert main([*words, "--out", str(tmp_path / "a"), "--max-image-pixels", "6K"]) == 2
    assert main([*words, "--out", str(tmp_path / "b")]) == 0
    assert not left_out(tmp_path / "b/rejected.csv")


def test_the_option_reaches_labelled_datasets_and_their_chunks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    for number in range(3):
        save_xray(tmp_path / f"images/x{number}.png", number)
    Image.fromarray(np.zeros((300, 300), np.uint8)).save(tmp_path / "images/x3.png")
    rows = "".join(f"x{number}.png,{number % 2}\n" for number in range(4))
    (tmp_path / "t.csv").write_text(f"image,TB\n{rows}", encoding="utf-8")
    words = ["prepare", "labels", "--table", str(tmp_path / "t.csv"), "--images", str(tmp_path / "images")]
    words += ["--out", str(tmp_path / "out"), "--workers", "1"]
    # A shard with another limit leaves chunks that are not used.
    assert main([*words, "--shard", "1/1", "--max-image-pixels", "80K"]) == 0
    assert main(words) == 0
    assert not left_out(tmp_path / "out/rejected.csv")
    assert main([*words, "--max-image-pixels", "many"]) == 2
    assert "--max-image-pixels must be a number" in capsys.readouterr().err
