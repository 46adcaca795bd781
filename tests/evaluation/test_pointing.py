"""The pointing game on made-up attention."""

from pathlib import Path

import numpy as np
import pytest
import torch

from prior_fast.data.prepared_dataset import Annotation, PreparedDataset
from prior_fast.evaluation.attention_map import attention_maps, departure_maps, directions, typical_maps, upsample
from prior_fast.evaluation.encode import Encoder
from prior_fast.evaluation.pointing import play, pointing_game, targets
from prior_fast.radiology.labels import FIVE_CLASSES
from prior_fast.training.checkpoint import open_checkpoint


def square(top: int, left: int, size: int = 32) -> np.ndarray:
    mask = np.zeros((224, 224), bool)
    mask[top : top + size, left : left + size] = True
    return mask


def annotation(row: int, finding: str, mask: np.ndarray) -> Annotation:
    return Annotation(row, finding, "left", "mild", (0.0, 0.0, 1.0, 1.0), mask)


def test_peak_inside_and_outside() -> None:
    maps = torch.full((3, 7, 7), 0.1)
    maps[0, 2, 3] = 0.9
    maps[1, 5, 5] = 0.9
    masks = np.stack([square(64, 96)] * 3)
    found = play(upsample(maps).numpy(), masks)
    # The third map is flat: every pixel is its maximum, so it hits as often as a random point does.
    np.testing.assert_allclose(found["hit"], [1, 0, masks[2].mean()])
    np.testing.assert_allclose(found["chance"], 32 * 32 / 224**2)
    assert found["contrast"][0] > 2 > 1 > found["contrast"][1]
    assert found["contrast"][2] == pytest.approx(1)


def test_contrast_is_a_ratio_of_means(rng: np.random.Generator) -> None:
    maps, masks = rng.random((2, 224, 224)).astype(np.float32), np.stack([square(0, 0), square(10, 180)])
    found = play(maps, masks)
    for index in range(2):
        wanted = maps[index][masks[index]].mean(dtype=float) / maps[index][~masks[index]].mean(dtype=float)
        assert found["contrast"][index] == pytest.approx(wanted)


def test_marks_of_one_finding_in_one_image_are_joined() -> None:
    marks = [
        annotation(4, "Edema", square(0, 0)),
        annotation(4, "edema", square(100, 100)),
        annotation(4, "Cardiomegaly", square(0, 100)),
        annotation(2, "Edema", np.zeros((224, 224), bool)),
        annotation(1, "Fracture", square(0, 0)),
    ]
    found = targets(marks, ["Edema", "Cardiomegaly"])
    assert [(target.image_row, target.finding) for target in found] == [(4, "Cardiomegaly"), (4, "Edema")]
    np.testing.assert_array_equal(found[1].mask, square(0, 0) | square(100, 100))


@torch.inference_mode()
def test_the_map_is_the_mean_of_both_directions(checkpoint: Path) -> None:
    model = open_checkpoint(checkpoint).load_model()
    patches, sentences = torch.randn(2, 49, 128), torch.randn(2, 128)
    attention = model.local_cross_attention
    maps = attention_maps(model, patches, sentences)
    for image in range(2):
        for patch in (0, 8, 48):
            x, s = patches[image, patch], sentences[image]
            (query1, key1, _), (query2, key2, _) = attention.image(x), attention.text(s)
            one = torch.sigmoid(query2 @ key1 / 128**0.5)
            other = torch.sigmoid(query1 @ key2 / 128**0.5)
            assert float(maps[image, patch // 7, patch % 7]) == pytest.approx(float(one + other) / 2, rel=1e-5)


@torch.inference_mode()
def test_departures_are_from_the_mean_over_the_images(checkpoint: Path) -> None:
    model = open_checkpoint(checkpoint).load_model()
    patches, sentences = torch.randn(5, 49, 128), torch.randn(2, 128)
    typical = typical_maps(model, patches, sentences)
    for index, sentence in enumerate(sentences):
        each = torch.stack([directions(model, image[None], sentence[None])[:, 0] for image in patches])
        torch.testing.assert_close(typical[:, index], each.mean(dim=0))
        repeated = typical[:, index : index + 1].expand(-1, 5, -1, -1)
        found = departure_maps(model, patches, sentence.expand(5, -1), repeated)
        torch.testing.assert_close(found, (each - each.mean(dim=0)).abs().sum(dim=1))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_departure_passes_over_what_all_images_share(
    sign: int, store: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention with a strong fixed peak and a weak rise or dip on each annotation: only its departure hits them."""
    dataset, opened = PreparedDataset.open(store, "test"), open_checkpoint(checkpoint)
    encoder = Encoder(opened, "cpu")
    marked = targets(dataset.annotations(), FIVE_CLASSES)
    rows = sorted({target.image_row for target in marked})
    masks = {row: np.any([t.mask for t in marked if t.image_row == row], axis=0) for row in rows}
    coarse = {row: torch.tensor(mask.reshape(7, 32, 7, 32).mean(axis=(1, 3))).float() for row, mask in masks.items()}
    seen = encoder.images(dataset.images, rows).patches

    def planted(model: object, patches: torch.Tensor, sentences: torch.Tensor) -> torch.Tensor:
        maps = torch.stack([coarse[rows[int((seen - image).abs().sum(dim=(1, 2)).argmin())]] for image in patches])
        maps = sign * maps
        maps[:, 0, 0] += 10
        return maps.expand(2, -1, -1, -1)

    monkeypatch.setattr("prior_fast.evaluation.attention_map.directions", planted)
    found = pointing_game(encoder, dataset, FIVE_CLASSES, "{} is observed")
    assert found is not None
    assert found["overall"]["hit_rate"] < 0.2
    assert found["overall"]["departure_hit_rate"] > 0.5


def test_played_on_a_split(store: Path, checkpoint: Path) -> None:
    dataset, opened = PreparedDataset.open(store, "test"), open_checkpoint(checkpoint)
    found = pointing_game(Encoder(opened, "cpu", batch_size=4), dataset, FIVE_CLASSES, "{} is observed")
    assert found is not None
    assert found["overall"]["targets"] == 17 and found["images"] == 16
    assert {name: row["targets"] for name, row in found["findings"].items()} == {
        **dict.fromkeys(FIVE_CLASSES, 3),
        **{"Cardiomegaly": 4, "Edema": 4},
    }
    total = sum(row["targets"] * row["hit_rate"] for row in found["findings"].values())
    assert found["overall"]["hit_rate"] == pytest.approx(total / 17)
    assert found["overall"]["chance"] == pytest.approx(32 * 32 / 224**2)
    other = pointing_game(Encoder(opened, "cpu", batch_size=64), dataset, FIVE_CLASSES, "{} is observed")
    assert other is not None and other["overall"] == pytest.approx(found["overall"])


def test_a_dataset_without_marks_has_no_game(checkpoint: Path, store: Path) -> None:
    dataset = PreparedDataset.open(store, "test")
    assert pointing_game(Encoder(open_checkpoint(checkpoint), "cpu"), dataset, ("Fracture", "Pneumonia"), "{}") is None
