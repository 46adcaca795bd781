"""The numbers shown in the pictures."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prior_fast.config import preset
from prior_fast.data.loader import evaluation_batches
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.evaluation.statements import named_finding
from prior_fast.pictures.attention import attention_section, choose_examples, choose_sentences
from prior_fast.pictures.config import PictureInputs
from prior_fast.pictures.embedding import draw_sentences, project
from prior_fast.pictures.losses import find_log, read_log
from prior_fast.pictures.page import Picture, Section, write_page
from prior_fast.pictures.prototypes import prototypes_section, read_prototypes
from prior_fast.pictures.queries import GROUPS, agreeing, query_weights, read_groups
from prior_fast.pictures.reconstruction import reconstruct
from prior_fast.radiology.labels import FIVE_CLASSES
from tests.evaluation.fake_store import write_store


class ChannelSums(torch.nn.Module):
    """Replaces a decoder: an untrained decoder makes the same gray image from every input."""

    def __init__(self) -> None:
        super().__init__()
        self.image_maps: list[torch.Tensor] = []

    def forward(self, image_map: torch.Tensor, text_map: torch.Tensor) -> torch.Tensor:
        self.image_maps.append(image_map)
        weights = torch.linspace(-1, 1, image_map.shape[1])[None, :, None, None]
        total = 20 * (image_map * weights).mean(dim=1) + (text_map * weights).mean(dim=1)
        return total[:, None].repeat_interleave(32, dim=2).repeat_interleave(32, dim=3)


@torch.inference_mode()
def test_reconstruction_is_that_of_stage_3_without_noise(inputs: PictureInputs) -> None:
    model, dataset = inputs.encoder.model, inputs.dataset
    model.image_decoder = decoder = ChannelSums()
    studies = np.array([1, 4, 6])
    batch = next(evaluation_batches(dataset, len(dataset), 256))
    image = model.encode_images(batch.images)
    read = model.sentence_bank(model.encode_sentences(batch), inputs.encoder.tau).output
    context = model.local_cross_attention(image.patches, read, batch.cu_sentences, batch.max_sentences).for_image
    wanted = model.reconstruct_images(image.patches, context)[torch.from_numpy(studies), 0]
    mean, std = inputs.encoder.checkpoint.image_mean, inputs.encoder.checkpoint.image_std
    gray = (wanted * std + mean).clamp(0, 1).numpy()
    assert gray.std() > 0.005  # not a constant picture, which any reconstruction would equal
    unmasked, masked = reconstruct(inputs, studies)
    np.testing.assert_allclose(unmasked, gray, atol=1e-5)
    whole, half = decoder.image_maps[1:]
    dropped = (half == 0).all(dim=(2, 3))
    assert 0.35 < dropped.float().mean() < 0.65
    torch.testing.assert_close(half, torch.where(dropped[:, :, None, None], 0, 2 * whole))
    assert np.abs(masked - unmasked).max() > 1e-3


@torch.inference_mode()
def test_prototypes_are_read_and_matched_as_by_a_loop(inputs: PictureInputs) -> None:
    sentences = draw_sentences(inputs.dataset, 12, np.random.default_rng(0))
    use, nearest, similarity = read_prototypes(inputs, sentences)
    bank = inputs.encoder.model.sentence_bank.embed.weight.double().numpy()
    embedded = inputs.encoder.texts([[sentence] for sentence in sentences]).sentences.double().numpy()
    strongest = [int(np.argmax([row @ prototype for prototype in bank])) for row in embedded]
    np.testing.assert_array_equal(use, np.bincount(strongest, minlength=len(use)))
    for prototype in (0, 17, 63):
        cosines = [row @ bank[prototype] / np.linalg.norm(row) / np.linalg.norm(bank[prototype]) for row in embedded]
        order = np.argsort(cosines)[::-1][:3]
        np.testing.assert_allclose(similarity[prototype], np.array(cosines)[order], rtol=1e-4)
        assert nearest[prototype].tolist() == order.tolist()


def test_prototypes_file_has_every_prototype_and_training_sentences(inputs: PictureInputs) -> None:
    section = prototypes_section(inputs)
    saved = json.loads((inputs.out / "prototypes.json").read_text())
    assert saved["split"] == "train" and len(saved["prototypes"]) == preset("tiny").model.bank.prototypes
    assert sum(row["sentences_that_read_it"] for row in saved["prototypes"]) == saved["sentences"]
    use = {row["prototype"]: row["sentences_that_read_it"] for row in saved["prototypes"]}
    assert [row[1] for row in section.rows] == sorted((count for count in use.values() if count), reverse=True)
    assert all(use[row[0]] == row[1] for row in section.rows)


def test_query_weights_are_the_softmax_of_inner_products(inputs: PictureInputs) -> None:
    sentences = GROUPS["Cardiomegaly"]
    weights = query_weights(inputs, sentences)
    embedded = inputs.encoder.texts([[sentence] for sentence in sentences]).sentences.double().numpy()
    bank = inputs.encoder.model.sentence_bank.embed.weight.detach().double().numpy()
    logits = embedded @ bank.T / inputs.encoder.tau
    wanted = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(weights, wanted / wanted.sum(axis=1, keepdims=True), rtol=1e-6, atol=1e-12)


def test_agreement_counts_the_most_common_prototype() -> None:
    assert agreeing(np.eye(6)[[2, 5, 2, 2, 0]]) == 3


def test_groups_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "groups.txt"
    path.write_text("# Heart\nThe heart is big.\nCardiomegaly.\n\n\nNo effusion.\r\nNo fluid.\n\n# empty\n")
    assert read_groups(path) == {
        "Heart": ["The heart is big.", "Cardiomegaly."],
        "group 2": ["No effusion.", "No fluid."],
    }
    path.write_text("# only a name\n")
    with pytest.raises(UsageError, match="has no sentence"):
        read_groups(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_groups(path)


def test_a_sentence_without_a_token_is_told(inputs: PictureInputs) -> None:
    with pytest.raises(UsageError, match="has no token"):
        query_weights(inputs, [" "])


def test_sentences_are_drawn_once_and_by_the_seed(inputs: PictureInputs) -> None:
    first, again, other = (draw_sentences(inputs.dataset, 8, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first == again != other
    assert len(set(first)) == 8
    everything = {s for study in range(len(inputs.dataset)) for s in inputs.dataset.sentences(study)}
    assert set(draw_sentences(inputs.dataset, 1000, np.random.default_rng(0))) == everything


@pytest.mark.parametrize("spread", [1.0, 0.0])
def test_projection_is_finite_and_repeatable(spread: float) -> None:
    points = 3 + spread * np.random.default_rng(0).normal(size=(20, 8))
    first, again = project(points, seed=1), project(points, seed=1)
    assert first.shape == (20, 2) and np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)


def test_projection_keeps_groups_apart() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(30, 16)), rng.normal(size=(30, 16)) + 20])
    placed = project(points, seed=0)
    distance = np.linalg.norm(placed[:, None] - placed[None], axis=2) + 1e9 * np.eye(60)
    assert ((distance.argmin(axis=1) < 30) == (np.arange(60) < 30)).all()


@pytest.mark.parametrize(
    "sentence, finding",
    [
        ("Small right pleural effusion.", "Pleural Effusion"),
        ("The HEART is enlarged.", "Cardiomegaly"),
        ("Bibasilar atelectatic changes.", "Atelectasis"),
        ("No pleural effusion or pneumothorax.", "several findings"),
        ("The bones are intact.", "other"),
    ],
)
def test_named_finding(sentence: str, finding: str) -> None:
    assert named_finding(sentence) == finding


def test_sentences_that_name_a_finding_come_first() -> None:
    assert choose_sentences(["Bones are intact.", "Edema.", "Lines are fine.", "Effusion.", "Clear."]) == [
        *("Edema.", "Effusion."),
        "Bones are intact.",
    ]


def test_examples_are_images_with_the_finding(inputs: PictureInputs) -> None:
    examples = choose_examples(inputs)
    assert [example.finding for example in examples] == list(FIVE_CLASSES)
    for example in examples:
        image = inputs.dataset.image(example.image_row)
        assert example.mask is not None and (image[example.mask] == 255).all()


def test_the_log_is_found_beside_checkpoints_only(run_folder: Path, tmp_path: Path) -> None:
    checkpoint = next((run_folder / "checkpoints").iterdir())
    assert find_log(checkpoint) == run_folder.resolve() / "log.jsonl"
    assert find_log(tmp_path / "step-00000001") is None
    lines = read_log(run_folder / "log.jsonl")
    assert len(lines) == 3 * (12 + 3)


def test_the_page_escapes_what_it_shows(tmp_path: Path) -> None:
    section = Section("x", "a <b>", "1 < 2", (Picture("p.png", "<i>"),), ("n", "text"), ((3, "<script>"),), "a & b")
    write_page(tmp_path, "T & T", "<facts>", [section])
    page = (tmp_path / "index.html").read_text()
    for raw in ("<b>", "<i>", "<script>", "<facts>"):
        assert raw not in page
    for escaped in ("a &lt;b&gt;", "1 &lt; 2", "&lt;script&gt;", "T &amp; T", "a &amp; b", 'class="number">3<'):
        assert escaped in page


def test_without_marks_the_labels_choose_the_images(inputs: PictureInputs, tmp_path: Path) -> None:
    plain = write_store(tmp_path / "plain", per_class=2, annotated=False)
    unmarked = dataclasses.replace(inputs, dataset=PreparedDataset.open(plain, "test"))
    examples = choose_examples(unmarked)
    assert [example.finding for example in examples] == list(FIVE_CLASSES)
    for index, example in enumerate(examples):
        assert example.mask is None
        assert (unmarked.dataset.image(example.image_row)[96:128, 40 * index : 40 * index + 32] == 255).all()
    assert "outline" not in attention_section(unmarked).pictures[0].caption


def test_a_model_with_the_released_layout_says_so(inputs: PictureInputs) -> None:
    model = inputs.encoder.model
    model.config = dataclasses.replace(model.config, layout="released")
    assert "do not show positions in the image" in attention_section(inputs).text
