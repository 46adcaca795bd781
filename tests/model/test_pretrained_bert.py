"""A BERT written by transformers is read completely, or refused with one line that names the error."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForPreTraining,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from prior_fast.config import preset
from prior_fast.errors import UsageError
from prior_fast.model.build import build_model, structure_of
from prior_fast.model.pretrained_bert import check_vocabulary, read_bert
from prior_fast.radiology.tokenizer import train_tokenizer

State = dict[str, Tensor]
SENTENCES = ["no pleural effusion is seen", "the heart is enlarged", "no effusion is seen", "the heart is not enlarged"]
SIZES = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 30,
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(SENTENCES)


@pytest.fixture(scope="module")
def folder(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with heads for pre-training and its tokenizer, in half precision."""
    path = tmp_path_factory.mktemp("bert") / "whole"
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_act="relu", layer_norm_eps=0.1, type_vocab_size=1,
        hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2, **SIZES,
    )  # fmt: skip
    BertForPreTraining(config).half().save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def changed(
    folder: Path,
    out: Path,
    tensors: Callable[[State], State] = dict,
    **config: Any,
) -> Path:
    """A copy of `folder` with other tensors or another config.json."""
    out.mkdir()
    for file in folder.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    state = tensors(safetensors.torch.load_file(folder / "model.safetensors"))
    safetensors.torch.save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    values = json.loads((folder / "config.json").read_text()) | config
    (out / "config.json").write_text(json.dumps(values))
    return out


def renamed(state: State) -> State:
    return {key.replace("layer.1.output.dense.bias", "layer.1.output.dense.bais"): x for key, x in state.items()}


def with_nan(state: State) -> State:
    state["bert.encoder.layer.0.intermediate.dense.weight"][3, 2] = float("nan")
    return state


def test_everything_is_read(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    found = read_bert(str(folder))
    text = found.structure
    assert (text.hidden_size, text.layers, text.heads, text.intermediate_size) == (12, 2, 3, 20)
    assert (text.hidden_act, text.layer_norm_eps, text.positions, text.token_types) == ("relu", 0.1, 30, 1)
    assert (text.dropout, text.attention_dropout, text.weights) == (0.3, 0.2, "random")
    assert found.vocab_size == len(tokenizer) and found.vocabulary == tokenizer.get_vocab()
    expected = BertModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32).state_dict()
    assert found.tensors.keys() == expected.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in expected.items())


def test_transformers_shows_no_bar_of_its_own(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    read_bert(str(folder))
    said = capfd.readouterr()
    assert [line for line in said.err.splitlines() if not line.startswith("text encoder ")] == [] and said.out == ""


def test_the_model_starts_from_them_and_knows_its_structure(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    config = preset("tiny").model
    config = type(config)(**{**vars(config), "text": type(config.text)(weights=str(folder))})
    model, notes = build_model(config, len(tokenizer), 3, tokenizer.get_vocab())
    assert notes[1] == f"text encoder: weights from {folder}"
    found = read_bert(str(folder))
    state = model.text_encoder.encoder.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in found.tensors.items())
    assert structure_of(model).text == found.structure
    # What the weights do not say stays as it was asked for.
    config = replace(config, text=replace(config.text, residual="bfloat16"))
    model, _ = build_model(config, len(tokenizer), 3, tokenizer.get_vocab())
    assert structure_of(model).text == replace(found.structure, residual="bfloat16")
    assert model.text_encoder.encoder.structure.residual == "bfloat16"


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        (
            renamed,
            {},
            r"lacks 1 of the 37 tensors that its config\.json calls for: encoder\.layer\.1\.output\.dense\.bias",
        ),
        (
            lambda state: {key: x for key, x in state.items() if ".layer.1." not in key},
            {},
            r"lacks 16 of the 37 tensors that its config\.json calls for: encoder\.layer\.1\.\S+, \S+ and 14 more",
        ),
        (lambda state: {f"module.{key}": x for key, x in state.items()}, {}, r"lacks 37 of the 37 tensors"),
        (dict, {"num_hidden_layers": 1}, r"has 16 tensors that its config\.json does not call for: .*layer\.1\."),
        (
            dict,
            {"max_position_embeddings": 31},
            r"does not fit its config\.json in 1 tensors: \S+ has shape \[30, 12\], wanted \[31, 12\]",
        ),
        (
            with_nan,
            {},
            r"values that are not finite in 1 tensors: encoder\.layer\.0\.intermediate\.dense\.weight",
        ),
        (dict, {"model_type": "roberta"}, r"of the family 'roberta', not BERT"),
        (dict, {"position_embedding_type": "relative_key"}, r"position_embedding_type=relative_key"),
        (dict, {"is_decoder": True}, r"is_decoder=true"),
        (dict, {"hidden_act": "mish"}, r"hidden_act=mish: known are gelu, gelu_new, relu, silu"),
    ],
)
def test_what_is_not_what_it_claims_is_refused(
    folder: Path, tmp_path: Path, tensors: Callable[[State], State], config: dict[str, Any], message: str
) -> None:
    path = changed(folder, tmp_path / "changed", tensors, **config)
    with pytest.raises(UsageError, match=message) as error:
        read_bert(str(path))
    assert str(error.value).startswith(f"model.text.weights={path} ")
    assert len(str(error.value)) < 300 + len(str(path))


def test_other_families_are_refused(tmp_path: Path) -> None:
    sizes = {"vocab_size": 20, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3}
    RobertaForMaskedLM(RobertaConfig(**sizes, intermediate_size=8)).save_pretrained(tmp_path / "roberta")
    DistilBertModel(DistilBertConfig(vocab_size=20, dim=12, n_layers=1, n_heads=3, hidden_dim=8)).save_pretrained(
        tmp_path / "distilbert"
    )
    for name in ("roberta", "distilbert"):
        with pytest.raises(UsageError, match=f"of the family '{name}', not BERT: give one whose model_type is bert"):
            read_bert(str(tmp_path / name))


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "could not be loaded"),
        ({"config.json": "{"}, "could not be loaded"),
        ({"config.json": json.dumps({"model_type": "bert", "vocab_size": 9, **SIZES})}, "could not be loaded"),
        (
            {"config.json": json.dumps({"model_type": "bert", "vocab_size": 9, **SIZES}), "model.safetensors": "?"},
            "could not be loaded",
        ),
    ],
)
def test_what_is_no_model_is_refused(files: dict[str, str], reason: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=rf"{reason} \(.+\): give a folder with a BERT model, or .*=random"):
        read_bert(str(tmp_path))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match=r"model\.text\.weights=no/such/folder could not be loaded.*random"):
        read_bert("no/such/folder")


def test_tokens_are_compared_not_counted(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    found, vocabulary = read_bert(str(folder)), tokenizer.get_vocab()
    size = len(vocabulary)
    assert check_vocabulary(found, "W", size, vocabulary) == ""
    with pytest.raises(UsageError, match=rf"vocabulary of {size} tokens, .* one of {size + 1}: .* --tokenizer W"):
        check_vocabulary(found, "W", size + 1, {**vocabulary, "new": size})
    first, second = sorted(vocabulary, key=vocabulary.__getitem__)[7:9]
    swapped = {**vocabulary, first: vocabulary[second], second: vocabulary[first]}
    with pytest.raises(UsageError, match=rf"2 of {size} differ, the first is 7, '{second}' in the dataset"):
        check_vocabulary(found, "W", size, swapped)


def test_without_a_tokenizer_beside_them_it_says_so(
    folder: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    path = changed(folder, tmp_path / "bare")
    for file in path.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()
    found = read_bert(str(path))
    assert found.vocabulary is None
    assert "only the number" in check_vocabulary(found, "W", len(tokenizer), tokenizer.get_vocab())


def test_nothing_is_unpickled(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder whose weights are a pickle that runs code is refused, and the code is not run."""
    import pickle

    monkeypatch.chdir(tmp_path)
    path = changed(folder, tmp_path / "trap")
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(pickle.dumps({"bert.pooler.dense.bias": Trap()}))
    with pytest.raises(UsageError, match="could not be loaded"):
        read_bert(str(path))
    assert not Path("opened").exists()


class Trap:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("opened").touch, ())
