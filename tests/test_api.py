"""The Python API on a model that was trained here for a few steps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

import prior_fast
from prior_fast.api import _pixels
from prior_fast.cli.main import main
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.radiology.xray import to_square
from tests.prepare.labelled.trees import raw_dicom, xray

SMALL = ["batch_size=8", "stage_epochs=1,1,1", "max_steps_per_stage=1", "data.workers=0"]


@pytest.fixture(scope="module")
def run(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("api") / "run"
    assert main(["train", "--preset", "tiny", "--data", str(small_store), "--out", str(out), *SMALL]) == 0
    return out


@pytest.fixture(scope="module")
def model(run: Path) -> "prior_fast.PRIOR":
    return prior_fast.PRIOR.from_pretrained(run, device="cpu")


def first_xray(small_store: Path) -> Path:
    return next((small_store.parent / "phantom").glob("files/p*/p*/s*/*.jpg"))


def test_files_pictures_and_arrays_are_the_same_image(model: "prior_fast.PRIOR", small_store: Path) -> None:
    path = first_xray(small_store)
    picture = Image.open(path)
    encoded = model.encode_images([path, str(path), picture, np.asarray(picture)])
    assert encoded.patches.shape == (4, 49, 128) and encoded.whole.shape == (4, 128)
    for other in (1, 2, 3):
        torch.testing.assert_close(encoded.whole[other], encoded.whole[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.encode_images(path).whole[0], encoded.whole[0], rtol=1e-4, atol=1e-5)


def test_every_array_follows_the_rules_of_files() -> None:
    gray = xray(8, 50, 70).copy()
    gray[0, :2] = 0, 255
    color = np.stack([gray, gray.T.reshape(50, 70), 255 - gray], axis=-1)
    square, luma = to_square(Image.fromarray(gray)), to_square(Image.fromarray(color).convert("L"))
    shares = gray / 255
    same = {
        "uint8": gray,
        "bool": gray > 127,
        "uint16": gray.astype(np.uint16) * 257,
        "int16": gray.astype(np.int16) * 100 - 5000,
        "int32": gray.astype(np.int32) * 257,
        "float16": (shares * 255).astype(np.float16),
        "float32": shares.astype(np.float32),
        "float64": shares,
        "minus 1 to 1": shares * 2 - 1,
        "TorchXRayVision's": (shares * 2048 - 1024).astype(np.float32)[None],
        "a channel last": gray[..., None],
        "a channel first": gray[None],
        "not contiguous": np.repeat(gray, 2, axis=1)[:, ::2],
        "other order of bytes": (gray.astype(np.uint16) * 257).astype(">u2"),
        "colors": color,
    }
    for name, values in same.items():
        wanted = luma if name == "colors" else to_square(Image.fromarray(gray > 127)) if name == "bool" else square
        given = [values] if values.dtype.byteorder == ">" else [values, torch.from_numpy(values.copy())]
        for each in given:
            assert np.array_equal(_pixels(each, 0), wanted), name
    narrow = torch.from_numpy(shares).bfloat16()
    assert np.array_equal(_pixels(narrow.requires_grad_(), 0), _pixels(narrow.detach().float().numpy(), 0))


def test_pillow_images_and_files_are_alike(tmp_path: Path) -> None:
    gray = xray(8, 50, 70)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    kinds = {"a.png": Image.fromarray(gray), "b.tif": Image.fromarray(gray.astype(np.float32) / 255)}
    kinds |= {"c.png": Image.fromarray(gray.astype(np.uint16) * 16), "d.jpg": Image.fromarray(gray).convert("RGB")}
    for name, image in kinds.items():
        image.save(tmp_path / name, **({} if name == "b.tif" else {"exif": exif}))
        with Image.open(tmp_path / name) as opened:
            assert np.array_equal(_pixels(opened, 0), _pixels(tmp_path / name, 0)), name
    turned = np.rot90(gray, -1)
    assert np.array_equal(_pixels(tmp_path / "a.png", 0), to_square(Image.fromarray(turned)))
    raw_dicom(tmp_path / "e", gray)
    assert np.array_equal(_pixels(str(tmp_path / "e"), 0), to_square(Image.fromarray(gray)))


def test_a_pillow_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    Image.fromarray(xray(8, 50, 70)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-200])
    with Image.open(tmp_path / "a.png") as opened, pytest.raises(ValueError, match=r"images\[3\]: .*truncated"):
        _pixels(opened, 3)


def test_images_are_encoded_as_the_prepared_ones(model: "prior_fast.PRIOR", small_store: Path) -> None:
    dataset = PreparedDataset.open(small_store, "test")
    wanted = model.encoder.images(dataset.images, [dataset.image_rows(0)[0]])
    got = model.encode_images(dataset.image(dataset.image_rows(0)[0]))
    torch.testing.assert_close(got.whole, wanted.whole, rtol=1e-4, atol=1e-5)


def test_reports_are_split_as_prepare_splits_them(model: "prior_fast.PRIOR") -> None:
    text = "FINAL REPORT\n \n HISTORY: Cough.\n \n FINDINGS: The heart is normal. No effusion.\n \n IMPRESSION: Clear."
    whole = model.encode_reports(text)
    split = model.encode_reports([["The heart is normal.", "No effusion.", "Clear."]])
    assert whole.cu_sentences.tolist() == [0, 3]
    torch.testing.assert_close(whole.reports, split.reports)
    plain = model.encode_reports(["The heart is normal. No effusion.", "Clear."])
    assert plain.cu_sentences.tolist() == [0, 2, 3]
    similarity = model.similarity(model.encode_images(np.zeros((40, 30), np.uint8)), plain)
    assert similarity.shape == (1, 2) and similarity.abs().max() <= 1.00001


def test_attention_is_a_map_of_weights(model: "prior_fast.PRIOR", small_store: Path) -> None:
    path = first_xray(small_store)
    small = model.attention(path, "Pleural effusion is observed.", size=7)
    assert small.shape == (7, 7) and small.min() > 0 and small.max() < 1
    black = np.zeros((100, 100), np.uint8)
    assert not torch.equal(small, model.attention(black, "Pleural effusion is observed.", size=7))
    assert model.attention(path, "Pleural effusion is observed.").shape == (224, 224)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.encode_images([]), "images is empty"),
        (lambda model: model.encode_images("nowhere.jpg"), r"images\[0\]: nowhere.jpg: there is no such file"),
        (lambda model: model.encode_images([np.zeros((3, 4), complex)]), r"images\[0\] is complex128 \[3, 4\], wanted"),
        (lambda model: model.encode_images([np.zeros((2, 3, 4))]), r"images\[0\] is float64 \[2, 3, 4\], wanted uint8"),
        (lambda model: model.encode_images([np.zeros((9, 9, 3))]), r"images\[0\] is float64 \[9, 9, 3\], wanted uint8"),
        (lambda model: model.encode_images([np.zeros(7)]), r"images\[0\] is float64 \[7\], wanted uint8"),
        (lambda model: model.encode_images([np.zeros((0, 4))]), r"images\[0\] is float64 \[0, 4\], wanted uint8"),
        (lambda model: model.encode_images([np.full((3, 4), np.nan)]), r"images\[0\]: a pixel is NaN or infinite"),
        (lambda model: model.encode_images(torch.zeros(3, 9, 9)), r"images\[0\] is float32 \[3, 9, 9\], wanted uint8"),
        (lambda model: model.encode_images([7]), r"images\[0\] is a int, wanted a path"),
        (lambda model: model.encode_reports([]), "reports is empty"),
        (lambda model: model.encode_reports(["Clear.", " "]), r"reports\[1\] has no sentence: ' '"),
        (lambda model: model.encode_reports(["Clear.", "Heart \udc80."]), r"reports\[1\] has half of a character"),
        (lambda model: model.encode_reports([["Heart \udc80."]]), r"reports\[0\] has half of a character"),
    ],
)
def test_what_does_not_fit_is_named(model: "prior_fast.PRIOR", call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(model)


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Prior'"):
        _ = prior_fast.Prior
