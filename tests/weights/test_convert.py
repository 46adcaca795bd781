"""Files with the released code's key names: keys are used, dropped for a reason, or refused."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision

from prior_fast.cli.main import main
from prior_fast.config import (
    ModelConfig,
    apply_overrides,
    preset,
    validate_config,
)
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.downstream.pretrained import open_pretrained
from prior_fast.evaluation.encode import Encoder
from prior_fast.model.build import build_model
from prior_fast.model.image_encoder import ResNet
from prior_fast.model.prior import PRIORModel
from prior_fast.training.checkpoint import open_checkpoint
from prior_fast.weights.convert import inspect
from prior_fast.weights.names import rename
from prior_fast.weights.structure import structure_of_tensors
from tests.released_files import released_names, small_released


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_whole_checkpoint_becomes_one_here(
    wrapped: bool, model: PRIORModel, dataset: PreparedDataset, tmp_path: Path
) -> None:
    state = released_names(model)
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "total_prior.ckpt")
    words = ["weights", "convert", str(tmp_path / "total_prior.ckpt"), "--out", str(tmp_path / "released")]
    assert main([*words, "--tokenizer", str(dataset.root / "tokenizer")]) == 0
    checkpoint = open_checkpoint(tmp_path / "released")
    assert checkpoint.structure.layout == "released" and checkpoint.structure.sentence_decoder.causal
    loaded = checkpoint.load_model().state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())
    report = json.loads((tmp_path / "released" / "report.json").read_text())
    assert len(report["used"]) == len(loaded) and not report["missing"] and not report["unknown"]
    assert sorted(report["dropped"]) == sorted(set(state) - set(report["used"].values()))
    assert "newer versions" in report["dropped"]["text_encoder.encoder.embeddings.position_ids"]
    assert main(["evaluate", "retrieval", "--checkpoint", str(tmp_path / "released"), "--data", str(dataset.root),
                 "--out", str(tmp_path / "retrieval"), "device=cpu"]) == 0  # fmt: skip


def test_a_missing_tensor_is_named_and_nothing_is_written(
    model: PRIORModel, dataset: PreparedDataset, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    state = released_names(model)
    del state["local_cross_attention.key2.bias"]
    torch.save(state, tmp_path / "file.pt")
    words = ["weights", "convert", str(tmp_path / "file.pt"), "--out", str(tmp_path / "out")]
    assert main([*words, "--tokenizer", str(dataset.root / "tokenizer")]) == 1
    assert "lacks 1 tensors that the model needs: local_cross_attention.key2.bias" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unknown_and_misshapen_tensors_are_refused(model: PRIORModel, tmp_path: Path) -> None:
    state = released_names(model)
    torch.save({**state, "mystery.weight": torch.zeros(2)}, tmp_path / "unknown.pt")
    assert "that no part of the model uses: mystery.weight" in str(inspect(tmp_path / "unknown.pt").problem)
    torch.save({**state, "logit_scale": torch.zeros(2)}, tmp_path / "shape.pt")
    assert "logit_scale has shape [2], the model's has []" in str(inspect(tmp_path / "shape.pt").problem)
    assert main(["weights", "inspect", str(tmp_path / "shape.pt"), "--out", str(tmp_path / "keys.json")]) == 1
    assert json.loads((tmp_path / "keys.json").read_text())["misfits"] == [["logit_scale", [2], []]]


def test_values_that_are_not_finite_are_refused(
    model: PRIORModel, dataset: PreparedDataset, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    state = released_names(model)
    state["sentence_bank.embed.weight"][2, 1] = float("nan")
    torch.save(state, tmp_path / "file.pt")
    words = ["weights", "convert", str(tmp_path / "file.pt"), "--out", str(tmp_path / "out")]
    assert main([*words, "--tokenizer", str(dataset.root / "tokenizer")]) == 1
    assert "values that are not finite in 1 tensors: sentence_bank.embed.weight" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_image_encoder_alone(prefix: str, tmp_path: Path) -> None:
    resnet = torchvision.models.resnet50()
    state = {name: tensor for name, tensor in resnet.state_dict().items() if not name.startswith("fc.")}
    state["conv1.weight"] = torch.randn(64, 1, 7, 7)
    torch.save({prefix + name: tensor for name, tensor in state.items()}, tmp_path / "prior_resnet50.pt")
    words = ["weights", "convert", str(tmp_path / "prior_resnet50.pt"), "--out", str(tmp_path / "resnet")]
    assert main(words) == 0
    written = safetensors.torch.load_file(tmp_path / "resnet" / "resnet50.safetensors")
    assert json.loads((tmp_path / "resnet" / "report.json").read_text())["settings"] == []
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(("depths", "width"), [((1, 1, 1), 16), ((2, 1, 1, 1), 8), ((3, 4, 6, 3), 32), ((1, 2), 8)])
def test_a_small_image_encoder_comes_with_the_settings_that_fit_it(
    depths: tuple[int, ...], width: int, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    torch.manual_seed(5)
    state = ResNet(depths, width).state_dict()
    torch.save(state, tmp_path / "encoder.pt")
    assert main(["weights", "convert", str(tmp_path / "encoder.pt"), "--out", str(tmp_path / "out")]) == 0
    assert [path.name for path in (tmp_path / "out").glob("*.safetensors")] == ["resnet.safetensors"]
    settings = json.loads((tmp_path / "out" / "report.json").read_text())["settings"]
    printed = "".join(capsys.readouterr().out.split())
    assert all(setting in printed for setting in settings)
    file = tmp_path / "out" / "resnet.safetensors"
    config = apply_overrides(preset("tiny"), [*settings, f"model.image.weights={file}"])
    validate_config(config)
    model, _ = build_model(config.model, 40, 0)
    loaded = model.image_encoder.encoder.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    encoder = open_pretrained(file).load("checkpoint", 0)
    assert encoder.encoder.shrink == config.model.image.shrink
    assert torch.equal(encoder.encoder.layer1[0].conv1.weight, state["layer1.0.conv1.weight"])


def test_the_released_sizes_are_read_from_the_tensors(model: PRIORModel) -> None:
    state = {name: released_names(model)[key] for name, key in rename(released_names(model)).used.items()}
    structure, vocab_size = structure_of_tensors(Path("x"), state)
    assert isinstance(structure, ModelConfig)
    assert (structure.embed_dim, structure.bank.prototypes, structure.text.layers) == (64, 10, 2)
    assert structure.image.depths == (1, 1, 1, 1) and vocab_size == len(
        state["text_encoder.encoder.embeddings.word_embeddings.weight"]
    )


def test_a_text_encoder_with_few_positions_gets_reports_that_fit(dataset: PreparedDataset, tmp_path: Path) -> None:
    torch.save(released_names(small_released(dataset.vocab_size, positions=64)), tmp_path / "file.pt")
    words = ["weights", "convert", str(tmp_path / "file.pt"), "--out", str(tmp_path / "out")]
    assert main([*words, "--tokenizer", str(dataset.root / "tokenizer")]) == 0
    checkpoint = open_checkpoint(tmp_path / "out")
    assert checkpoint.structure.text.positions == checkpoint.config.data.max_tokens == 64
    found = Encoder(checkpoint, "cpu").texts([["the heart is enlarged and the lungs are clear"] * 20])
    assert found.cut == 1 and torch.isfinite(found.reports).all()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.zeros(1)}, "is neither an image encoder nor a whole model of PRIOR"),
        (None, "there is no such file"),
    ],
)
def test_other_files_are_refused(
    state: dict | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    if state is not None:
        torch.save(state, tmp_path / "file.pt")
    assert main(["weights", "inspect", str(tmp_path / "file.pt")]) == 2
    assert message in capsys.readouterr().err


def test_wrong_tokenizers_are_refused(
    model: PRIORModel, tmp_path: Path, capsys: pytest.CaptureFixture, dataset: PreparedDataset
) -> None:
    torch.save(released_names(small_released(77)), tmp_path / "file.pt")
    words = ["weights", "convert", str(tmp_path / "file.pt"), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "--tokenizer: a whole model needs its tokenizer" in capsys.readouterr().err
    assert main([*words, "--tokenizer", str(dataset.root / "tokenizer")]) == 2
    assert f"it has {dataset.vocab_size} tokens, the weights 77" in capsys.readouterr().err


def test_exported_encoders_serve_elsewhere(model: PRIORModel, dataset: PreparedDataset, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BertModel

    torch.save(released_names(model), tmp_path / "file.pt")
    words = ["weights", "convert", str(tmp_path / "file.pt"), "--out", str(tmp_path / "released")]
    assert main([*words, "--tokenizer", str(dataset.root / "tokenizer")]) == 0
    assert main(["weights", "export", str(tmp_path / "released"), "--out", str(tmp_path / "out")]) == 0
    resnet = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], width_per_group=64)
    names = {name for name in resnet.state_dict() if not name.startswith("fc.")}
    assert safetensors.torch.load_file(tmp_path / "out" / "resnet.safetensors").keys() == names
    bert = BertModel.from_pretrained(tmp_path / "out" / "text_encoder", add_pooling_layer=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "text_encoder")
    tokens = tokenizer("No pleural effusion is seen.", return_tensors="pt")
    count = tokens["input_ids"].shape[1]
    model.eval()
    with torch.no_grad():
        theirs = bert(**tokens).last_hidden_state[0]
        offsets = torch.tensor([0, count], dtype=torch.int32)
        ours = model.text_encoder(tokens["input_ids"][0], torch.arange(count), offsets, count)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
    assert main(["weights", "export", str(tmp_path / "released"), "--out", str(tmp_path / "out")]) == 2
