"""A run from a BERT with other constants: resuming, evaluation and export use the constants of training."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from prior_fast.cli.main import main
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.training.checkpoint import open_checkpoint


@pytest.fixture(scope="module")
def bert(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 positions, one segment, relu, a large epsilon."""
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = PreparedDataset.open(small_store, "train").tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40,
        max_position_embeddings=64, type_vocab_size=1, hidden_act="relu", layer_norm_eps=0.1,
    )  # fmt: skip
    torch.manual_seed(2)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def copied(folder: Path, out: Path) -> Path:
    """A copy of a folder's files, without its folders."""
    out.mkdir()
    for file in filter(Path.is_file, folder.iterdir()):
        (out / file.name).write_bytes(file.read_bytes())
    return out


def words(store: Path, out: Path, bert: Path, settings: list[str]) -> list[str]:
    settings = [word for word in settings if not word.startswith("model.text.")]
    return ["train", "--preset", "tiny", "--data", str(store), "--out", str(out), *settings,
            f"model.text.weights={bert}", "data.max_tokens=64", "stage_epochs=1,0,0"]  # fmt: skip


@pytest.fixture(scope="module")
def run(bert: Path, small_store: Path, small_settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main([*words(small_store, out, bert, small_settings), "--stop-after", "1"]) == 0
    return out


def test_the_checkpoint_has_its_whole_configuration(run: Path) -> None:
    text = open_checkpoint(run).structure.text
    assert (text.hidden_act, text.layer_norm_eps, text.positions, text.token_types) == ("relu", 0.1, 64, 1)


def test_it_can_be_resumed_and_evaluated(run: Path, small_store: Path, tmp_path: Path) -> None:
    first = open_checkpoint(run).position.total_steps
    assert main(["train", "--out", str(run), "--data", str(small_store), "--resume", "auto"]) == 0
    assert open_checkpoint(run).position.total_steps > first
    assert main(["evaluate", "retrieval", "--checkpoint", str(run), "--data", str(small_store),
                 "--out", str(tmp_path / "retrieval"), "device=cpu"]) == 0  # fmt: skip


@torch.no_grad()
def test_what_is_exported_computes_the_same(run: Path, tmp_path: Path) -> None:
    assert main(["weights", "export", str(run), "--out", str(tmp_path / "out")]) == 0
    folder = tmp_path / "out" / "text_encoder"
    theirs, info = AutoModel.from_pretrained(folder, add_pooling_layer=False, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    config = theirs.config
    assert (config.hidden_act, config.layer_norm_eps, config.type_vocab_size) == ("relu", 0.1, 1)
    tokens = AutoTokenizer.from_pretrained(folder)("No pleural effusion is seen.", return_tensors="pt")["input_ids"]
    count = tokens.shape[1]
    ours = open_checkpoint(run).load_model().text_encoder
    out = ours(tokens[0], torch.arange(count), torch.tensor([0, count], dtype=torch.int32), count)
    expected = theirs.eval()(input_ids=tokens).last_hidden_state[0]
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    # The constants matter: BERT's default constants give other outputs.
    config.hidden_act, config.layer_norm_eps = "gelu", 1e-12
    plain = BertModel(config, add_pooling_layer=False).eval()
    plain.load_state_dict(theirs.state_dict())
    assert (plain(input_ids=tokens).last_hidden_state[0] - expected).abs().max() > 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.max_tokens=65", "data.max_tokens=65: the text encoder has 64 positions"),
        ("data.token_bucket=128", "data.token_bucket=128: the text encoder has 64 positions"),
    ],
)
def test_more_tokens_than_positions_are_refused_before_training(
    change: str, message: str, bert: Path, small_store: Path, small_settings: list[str], tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    assert main([*words(small_store, tmp_path / "run", bert, small_settings), change]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_other_tokens_are_refused_before_training(
    bert: Path, small_store: Path, small_settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The vocabulary has as many tokens as the dataset's, in another order."""
    other = copied(bert, tmp_path / "other")
    facts = json.loads((other / "tokenizer.json").read_text())
    vocabulary = facts["model"]["vocab"]
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    order = np.r_[:5, np.random.default_rng(0).permutation(np.arange(5, len(pieces)))]
    facts["model"]["vocab"] = {pieces[old]: new for new, old in enumerate(order)}
    (other / "tokenizer.json").write_text(json.dumps(facts))
    assert main(words(small_store, tmp_path / "run", other, small_settings)) == 2
    error = capsys.readouterr().err
    assert "has other tokens than the prepared dataset" in error and f"--tokenizer {other}" in error
    assert not (tmp_path / "run").exists()


def test_a_renamed_key_is_refused_before_training(
    bert: Path, small_store: Path, small_settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = copied(bert, tmp_path / "other")
    state = safetensors.torch.load_file(bert / "model.safetensors")
    state["embeddings.LayerNorm.wieght"] = state.pop("embeddings.LayerNorm.weight")
    safetensors.torch.save_file(state, other / "model.safetensors", metadata={"format": "pt"})
    assert main(words(small_store, tmp_path / "run", other, small_settings)) == 2
    error = capsys.readouterr().err
    assert "lacks 1 of the 37 tensors that its config.json calls for: embeddings.LayerNorm.weight" in error
    assert "has 1 besides: embeddings.LayerNorm.wieght" in error
    assert not (tmp_path / "run").exists()


def test_inspect_knows_what_was_written(run: Path, bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    checkpoint = open_checkpoint(run).path
    for path in (run, checkpoint, checkpoint / "model.safetensors"):
        assert main(["weights", "inspect", str(path), "--out", str(tmp_path / "facts.json")]) == 0
        assert f"{checkpoint}: a checkpoint of prior-fast (stage 1" in capsys.readouterr().out
        facts = json.loads((tmp_path / "facts.json").read_text())
        assert facts["structure"]["text"]["hidden_act"] == "relu" and facts["problem"] is None
    assert main(["weights", "inspect", str(bert)]) == 0
    assert "a BERT for model.text.weights (2 layers of 24" in capsys.readouterr().out
    assert main(["weights", "inspect", str(checkpoint / "optimizer.safetensors")]) == 2
    assert "is a part of the checkpoint" in capsys.readouterr().err
    assert main(["weights", "export", str(run), "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert main(["weights", "inspect", str(tmp_path / "out")]) == 2
    assert "give " + str(tmp_path / "out" / "text_encoder") in capsys.readouterr().err
    assert main(["weights", "inspect", str(tmp_path / "out" / "text_encoder")]) == 0
    assert main(["weights", "inspect", str(tmp_path / "out" / "resnet.safetensors")]) == 0
    assert main(["weights", "inspect", str(tmp_path)]) == 2


def test_inspect_and_loading_see_a_renamed_key(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    checkpoint = open_checkpoint(run).path
    other = copied(checkpoint, tmp_path / "step-00000001")
    state = safetensors.torch.load_file(checkpoint / "model.safetensors")
    state["logit_scales"] = state.pop("logit_scale")
    safetensors.torch.save_file(state, other / "model.safetensors")
    assert main(["weights", "inspect", str(other)]) == 2
    assert "model.safetensors was changed or damaged" in capsys.readouterr().err
    # As a version that recorded no digests.
    info = json.loads((other / "checkpoint.json").read_text())
    del info["files"], info["seal"]
    (other / "checkpoint.json").write_text(json.dumps(info))
    assert main(["weights", "inspect", str(other)]) == 1
    count = len(state)
    message = f"it lacks 1 of the model's {count} tensors: logit_scale, and has 1 that it does not know: logit_scales"
    assert message in capsys.readouterr().out
    assert main(["weights", "export", str(other), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
