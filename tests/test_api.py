"""The Python API on a model that was trained here for a few steps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import prior_fast
from prior_fast.cli.main import main
from prior_fast.data.prepared_dataset import PreparedDataset

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
        (lambda model: model.encode_images([np.zeros((3, 4))]), r"images\[0\] is float64 \[3, 4\], wanted uint8"),
        (lambda model: model.encode_images([7]), r"images\[0\] is a int, wanted a path"),
        (lambda model: model.encode_reports([]), "reports is empty"),
        (lambda model: model.encode_reports(["Clear.", " "]), r"reports\[1\] has no sentence: ' '"),
    ],
)
def test_what_does_not_fit_is_named(model: "prior_fast.PRIOR", call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(model)


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Prior'"):
        _ = prior_fast.Prior
