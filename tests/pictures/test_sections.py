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
from prior_fast.evaluation.encode import Encoder, first_image_rows
from prior_fast.evaluation.pointing import targets
from prior_fast.evaluation.reconstruct import channel_masks, reconstruct
from prior_fast.evaluation.statements import FINDINGS, named_finding, read_statement
from prior_fast.pictures import reconstruction
from prior_fast.pictures.attention import attention_section, choose_sentences
from prior_fast.pictures.attention_examples import KINDS, Kind, labelled_examples, pointed_examples
from prior_fast.pictures.cached_encoder import CachedEncoder
from prior_fast.pictures.config import PictureInputs
from prior_fast.pictures.embedding import draw_sentences, project
from prior_fast.pictures.losses import find_log, read_log, stage_spans
from prior_fast.pictures.page import Picture, Section, write_page
from prior_fast.pictures.prototypes import prototypes_section, shown_rows
from prior_fast.pictures.queries import GROUPS, agreeing, query_weights, read_groups
from prior_fast.radiology.labels import FIVE_CLASSES
from prior_fast.training.checkpoint import open_checkpoint
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
    patches = inputs.encoder.images(dataset.images, first_image_rows(dataset, studies)).patches
    reports, masks = [dataset.sentences(study) for study in studies], channel_masks(inputs.encoder, 3, seed=0)
    unmasked = reconstruct(inputs.encoder, patches, reports)
    masked = reconstruct(inputs.encoder, patches, reports, masks)
    np.testing.assert_allclose(unmasked, gray, atol=1e-5)
    whole, half = decoder.image_maps[1:]
    dropped = (half == 0).all(dim=(2, 3))
    assert 0.35 < dropped.float().mean() < 0.65
    torch.testing.assert_close(half, torch.where(dropped[:, :, None, None], 0, 2 * whole))
    assert np.abs(masked - unmasked).max() > 1e-3


def test_reconstruction_compares_three_reports(inputs: PictureInputs) -> None:
    inputs.encoder.model.image_decoder = ChannelSums()
    chosen = reconstruction.choose_examples(inputs)
    assert len(chosen) == 2 and len({example.study for example in chosen}) == 2
    for example in chosen:
        report = inputs.dataset.sentences(example.study)
        assert any(read_statement(sentence).asserts(example.finding) for sentence in report)
        assert example.mask is not None and (inputs.dataset.image(example.image_row)[example.mask] == 255).all()
    found = reconstruction.reconstructions(inputs, chosen)
    assert list(found) == ["own report", "another report", "no report"]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        images = list(found.values())
        assert np.abs(images[first] - images[second]).max() > 1e-6
    section = reconstruction.reconstruction_section(inputs)
    assert "context of zeros" in section.text and "inside the cyan outline" in section.pictures[0].caption


def test_reconstruction_errors_are_those_inside_the_mask() -> None:
    mask = np.zeros((4, 4), bool)
    mask[1, 1:3] = True
    images, originals = np.zeros((2, 4, 4), np.float32), np.ones((2, 4, 4))
    images[0, 1, 1:3] = 0.5
    examples = [reconstruction.Example(0, 0, "Edema", mask), reconstruction.Example(1, 1)]
    assert reconstruction.errors_inside(images, originals, examples) == [0.25, 1.0]


def test_another_study_is_never_the_same() -> None:
    rng = np.random.default_rng(0)
    assert all(reconstruction.other_study(3, 1, rng) in (0, 2) for _ in range(20))
    assert reconstruction.other_study(1, 0, rng) == 0


def test_prototypes_file_has_every_prototype_in_use(inputs: PictureInputs) -> None:
    section = prototypes_section(inputs)
    saved = json.loads((inputs.out / "prototypes.json").read_text())
    assert saved["split"] == "train" and saved["prototypes"] == preset("tiny").model.bank.prototypes
    rows = {row["prototype"]: row for row in saved["table"]}
    assert len(rows) == saved["prototypes_used"] == section.facts["prototypes_read"]
    assert sum(row["sentences"] for row in rows.values()) == saved["sentences"] == 8 * 5 == section.facts["sentences"]
    for prototype, sentences, finding, side, presence, purity, typical in section.rows:
        row = rows[prototype]
        assert (sentences, finding, side, presence) == tuple(
            row[name] for name in ("sentences", "finding", "side", "presence")
        )
        assert purity == pytest.approx(row["purity"], abs=0.006) and row["typical"][0] in typical


def test_prototypes_that_stand_for_a_finding_come_first() -> None:
    rows = [{"finding": name} for name in ["other", "Edema", *["other"] * 9, *["Edema"] * 30]]
    shown = [row["finding"] for row in shown_rows(rows)]
    assert shown == ["Edema"] * 25 + ["other"] * 5


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


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.key)
def test_hits_and_misses_are_told_apart(kind: Kind, inputs: PictureInputs) -> None:
    found = pointed_examples(inputs, kind)
    assert [each.finding for each in found] == list(FIVE_CLASSES)
    assert sum(each.targets for each in found) == len(targets(inputs.dataset.annotations(), FINDINGS)) == 22
    for each in found:
        for shown, inside in ((each.hit, True), (each.miss, False)):
            if shown is not None:
                assert (inputs.dataset.image(shown.image_row)[shown.mask] == 255).all()
                assert (shown.values[shown.mask].max() == shown.values.max()) == inside
        assert (each.hit is None) == (each.hits == 0) and (each.miss is None) == (each.hits == each.targets)
        assert each.chance == pytest.approx(32 * 32 / 224**2)


def test_a_map_that_is_greatest_at_the_finding_hits(inputs: PictureInputs) -> None:
    def square(number: int) -> Kind:
        """Greatest in the patch under the square of a class."""

        def maps(model: object, patches: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            found = torch.zeros(len(patches), 7, 7)
            found[:, 3, round((40 * number + 16) / 32 - 0.5)] = 1
            return found

        return Kind("x", "x", "x", 1.0, maps)

    found = {each.finding: each for each in pointed_examples(inputs, square(FIVE_CLASSES.index("Atelectasis")))}
    assert found["Atelectasis"].hits == found["Atelectasis"].targets and found["Atelectasis"].miss is None
    assert found["Pleural Effusion"].hits == 0 and found["Pleural Effusion"].hit is None


def test_the_kinds_name_their_unit(inputs: PictureInputs) -> None:
    section = attention_section(inputs)
    assert "The departure is not a weight" in section.text
    assert [kind.unit for kind in KINDS] == [
        "attention weight (0 to 1)",
        "departure: difference of weights, sum of both directions (0 to 2)",
    ]
    for kind in KINDS:
        for each in pointed_examples(inputs, kind):
            for shown in (each.hit, each.miss):
                assert shown is None or (shown.values.min() >= 0 and shown.values.max() <= kind.most)
    rates = section.facts["hits"]["weight"]
    hits, count = (sum(pair[index] for pair in rates.values()) for index in (0, 1))
    assert f"the maximum is inside for {hits / count:.1%}" in section.pictures[0].caption


def test_images_are_encoded_once(run_folder: Path, store: Path) -> None:
    plain, cached = Encoder(open_checkpoint(run_folder), "cpu"), CachedEncoder(open_checkpoint(run_folder), "cpu")
    images, calls = PreparedDataset.open(store).images, []
    encode = cached.model.encode_images
    cached.model.encode_images = lambda batch, *rest: calls.append(len(batch)) or encode(batch, *rest)
    first, second = cached.images(images, [5, 2, 5]), cached.images(images, np.array([2, 7]))
    assert calls == [2, 1]
    for found, rows in ((first, [5, 2, 5]), (second, [2, 7])):
        wanted = plain.images(images, rows)
        torch.testing.assert_close(found.patches, wanted.patches, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found.whole, wanted.whole, rtol=1e-3, atol=1e-4)


def test_stages_of_the_log(run_folder: Path) -> None:
    lines = read_log(run_folder / "log.jsonl")
    assert stage_spans(lines) == {1: (0, 12), 2: (12, 24), 3: (24, 36)}
    assert stage_spans([line for line in lines if line["stage"] == 2]) == {2: (0, 24)}


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
    shown = labelled_examples(unmarked, KINDS[0])
    assert list(shown) == list(FIVE_CLASSES)
    for index, example in enumerate(shown.values()):
        square = unmarked.dataset.image(example.image_row)[96:128, 40 * index : 40 * index + 32]
        assert (square == 255).all()
    section = attention_section(unmarked)
    assert [picture.file for picture in section.pictures] == [
        *("attention-weight.png", "attention-departure.png", "attention-reports.png")
    ]
    assert "labelled so" in section.pictures[0].caption and section.facts["hits"] == {}
    chosen = reconstruction.choose_examples(unmarked)
    assert [example.mask for example in chosen] == [None, None]
    assert "over the image" in reconstruction.reconstruction_section(unmarked).pictures[0].caption


def test_a_model_with_the_released_layout_says_so(inputs: PictureInputs) -> None:
    model = inputs.encoder.model
    model.config = dataclasses.replace(model.config, layout="released")
    assert "do not show positions in the image" in attention_section(inputs).text
