import argparse
import json

import numpy as np
import pytest
from PIL import Image

from prior_fast.cli import prepare
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import Interrupted, UsageError
from prior_fast.prepare.studies import pipeline
from prior_fast.prepare.studies.pipeline import prepare_studies
from prior_fast.radiology.xray import UnreadableImage, read_xray
from tests.prepare.mimic_tree import MimicTree, contents, mimic_options, small_tree


@pytest.fixture
def tree(tmp_path) -> MimicTree:
    """A small tree with one image that is large enough to be reduced while it is decoded."""
    tree = small_tree(tmp_path / "tree")
    (path,) = tree.add(50_000_200, size=(1000, 1200))
    Image.fromarray(smooth(1000, 1200)).save(path, quality=90)
    tree.write()
    return tree


def smooth(width: int, height: int, mode: str = "L") -> np.ndarray:
    """A picture of soft waves and a few sharp edges."""
    y, x = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    gray = 128 + 60 * np.sin(9 * x + 3 * y) + 50 * np.cos(11 * y - 2 * x)
    gray[height // 3 : height // 2, width // 4 : width // 2] += 12
    gray = gray.clip(0, 255).astype(np.uint8)
    return gray if mode == "L" else np.stack([gray, 255 - gray, gray // 2], axis=-1)


def difference(path) -> np.ndarray:
    (exact, size), (fast, fast_size) = read_xray(path), read_xray(path, "fast")
    assert size == fast_size
    assert exact.shape == fast.shape == (224, 224)
    assert exact.dtype == fast.dtype == np.uint8
    return np.abs(exact.astype(int) - fast)


@pytest.mark.parametrize("size", [(896, 896), (1000, 1200), (1797, 903), (2544, 3056), (4001, 3999)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_fast_differs_little_on_smooth_images(tmp_path, size, mode):
    Image.fromarray(smooth(*size, mode)).save(tmp_path / "a.jpg", quality=95)
    apart = difference(tmp_path / "a.jpg")
    assert apart.mean() < 0.5
    assert apart.max() <= 6
    # A shift by part of a pixel would show as a difference of one sign along a slope.
    exact, fast = (read_xray(tmp_path / "a.jpg", decode)[0].astype(int) for decode in ("exact", "fast"))
    assert abs((exact - fast).mean()) < 0.3


@pytest.mark.parametrize(("size", "reduced"), [((2544, 3056), (636, 764)), ((895, 3000), (895, 3000))])
def test_fast_never_goes_under_twice_the_target(tmp_path, size, reduced, monkeypatch):
    Image.fromarray(smooth(*size)).save(tmp_path / "a.jpg", quality=90)
    seen = []
    resize = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda self, *rest: seen.append(self.size) or resize(self, *rest))
    read_xray(tmp_path / "a.jpg", "fast")
    read_xray(tmp_path / "a.jpg")
    assert seen == [reduced, size]


def test_fast_is_exact_on_small_jpegs_and_other_formats(tmp_path, rng):
    noise = rng.integers(0, 256, (895, 1100), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", quality=90)
    Image.fromarray(np.tile(noise, (2, 2))).save(tmp_path / "b.png")
    assert not difference(tmp_path / "a.jpg").any()
    assert not difference(tmp_path / "b.png").any()


def test_fast_finds_broken_files_as_exact_does(tmp_path):
    Image.fromarray(smooth(2000, 2000)).save(tmp_path / "a.jpg", quality=90)
    whole = (tmp_path / "a.jpg").read_bytes()
    for data in (b"", b"plain text", whole[:200], whole[: len(whole) // 2]):
        (tmp_path / "b.jpg").write_bytes(data)
        messages = []
        for decode in ("exact", "fast"):
            with pytest.raises(UnreadableImage) as caught:
                read_xray(tmp_path / "b.jpg", decode)
            messages.append(str(caught.value).partition("(")[0])
        assert messages[0] == messages[1]


def test_fast_differs_little_on_real_xrays(real_cxr):
    apart = [difference(path) for path in sorted(real_cxr.rglob("*.jpg"))[::4]]
    assert np.mean([one.mean() for one in apart]) < 0.5
    assert max(one.mean() for one in apart) < 1
    assert max(one.max() for one in apart) <= 16


def test_the_choice_is_recorded_and_changes_only_large_images(tree, tmp_path):
    prepare_studies(mimic_options(images=tree.root, out=tmp_path / "exact"))
    report = prepare_studies(mimic_options(images=tree.root, out=tmp_path / "fast", decode="fast"))
    assert report["decode"] == "fast"
    for decode in ("exact", "fast"):
        assert json.loads((tmp_path / decode / "dataset.json").read_text(encoding="utf-8"))["decode"] == decode
    exact, fast = (PreparedDataset.open(tmp_path / decode, verify="full") for decode in ("exact", "fast"))
    changed = [row for row in range(len(exact.images)) if not np.array_equal(exact.image(row), fast.image(row))]
    assert changed == [exact.image_rows(exact.study_ids.tolist().index(50_000_200))[0]]
    with pytest.raises(UsageError, match="with other options"):
        prepare_studies(mimic_options(images=tree.root, out=tmp_path / "exact", decode="fast"))


@pytest.mark.parametrize(("first", "second"), [("exact", "fast"), ("fast", "exact")])
def test_a_run_does_not_go_on_with_the_other_way(tree, tmp_path, monkeypatch, first, second):
    def interrupted(*_arguments):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.assemble, "collect", interrupted)
        with pytest.raises(Interrupted, match="stopped"):
            prepare_studies(mimic_options(images=tree.root, out=out, decode=first))
    with pytest.raises(UsageError, match=f"with --decode {first}, not {second}: give --decode {first}"):
        prepare_studies(mimic_options(images=tree.root, out=out, decode=second))
    prepare_studies(mimic_options(images=tree.root, out=out, decode=first))
    prepare_studies(mimic_options(images=tree.root, out=tmp_path / "whole", decode=first))
    assert contents(out) == contents(tmp_path / "whole")


def test_the_command_takes_the_choice(tree, tmp_path):
    parser = argparse.ArgumentParser()
    prepare.add_parser(parser.add_subparsers())
    words = ["prepare", "mimic", "--images", tree.root, "--out", tmp_path / "out", "--workers", 1]
    args = parser.parse_args([*map(str, words), "--decode", "fast"])
    assert args.run(args) == 0
    assert PreparedDataset.open(tmp_path / "out").info["decode"] == "fast"
    assert parser.parse_args([str(word) for word in words]).decode == "exact"
    with pytest.raises(UsageError, match="--decode must be exact or fast, not 'quick'"):
        prepare_studies(mimic_options(images=tree.root, out=tmp_path / "b", decode="quick"))
