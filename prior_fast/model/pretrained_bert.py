"""Reads a BERT that transformers wrote, strictly and only through transformers' public interface."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prior_fast.config import TextEncoderConfig
from prior_fast.console import busy
from prior_fast.console.download import HubName, find_on_hub, reason_of
from prior_fast.console.quiet import quiet_transformers
from prior_fast.errors import UsageError
from prior_fast.model.bert import ACTIVATIONS
from prior_fast.model.weights import named, nonfinite

# Parts of a BERT for other tasks, which the text encoder does not use.
_HEADS = re.compile(r"(bert\.)?(cls|pooler|classifier|qa_outputs)\..*|(.*\.)?position_ids")
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")
# From a field of TextEncoderConfig to the field of transformers' BertConfig.
BERT_CONFIG = {
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "hidden_act": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
    "positions": "max_position_embeddings",
    "token_types": "type_vocab_size",
}


@dataclass(frozen=True)
class PretrainedBert:
    """A BERT's weights and their structure.

    Attributes:
        structure: config of the text encoder that the weights fill.
        vocab_size: rows of the word table.
        tensors: float32 tensors by the names of `prior_fast.model.bert.Bert`.
        vocabulary: token to id, of the tokenizer in the weights' folder; None if there is none.
    """

    structure: TextEncoderConfig
    vocab_size: int
    tensors: Mapping[str, Tensor]
    vocabulary: Mapping[str, int] | None


def read_bert(weights: str, argument: str = "model.text.weights") -> PretrainedBert:
    """Read a BERT from a folder or, by its name, from Hugging Face.

    A name that can't be reached is refused within seconds (`prior_fast.console.download`).

    argument: the setting or option that holds `weights`, for messages.

    Raises:
        UsageError: the weights can't be loaded, are of another family, do not fit their own config.json, or are not
            finite; or config.json has a feature that `prior_fast.model.bert` does not have.
    """
    source = f"{argument}={weights}"
    # It reads the weights, and shows what lasts; `_check_loading` says what transformers would warn of.
    with busy(f"text encoder {weights}"), quiet_transformers():
        found, loaded = _load(weights, argument)
        model, info = loaded
        tensors = model.state_dict()
        _check_loading(info, tensors, source)
        vocabulary = _vocabulary(found)
    structure = TextEncoderConfig(
        weights="random", **{ours: getattr(model.config, theirs) for ours, theirs in BERT_CONFIG.items()}
    )
    return PretrainedBert(structure, model.config.vocab_size, tensors, vocabulary)


def _load(weights: str, argument: str) -> tuple[HubName, Any]:
    """Where the weights were found, and transformers' model of them with what it says about their tensors."""
    from transformers import BertModel, PretrainedConfig

    source, refusal = f"{argument}={weights}", ""
    try:
        found = find_on_hub(weights)
        refusal = found.refusal
        values, _ = PretrainedConfig.get_config_dict(weights, local_files_only=found.local)
        _check_config(values, source)
        found.download_weights()
        # `_check_loading` reports shapes that do not fit, by name.
        return found, BertModel.from_pretrained(
            weights,
            add_pooling_layer=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
            trust_remote_code=False,
            local_files_only=found.local,
        )
    except UsageError:
        raise
    except Exception as error:  # the hub client, transformers and safetensors each raise their own types
        reason = refusal or reason_of(error)
        raise UsageError(
            f"{source} could not be loaded ({reason}): give a folder with a BERT model, or ask for {argument}=random"
            f"{'; --preset tiny needs no weights' if argument == 'model.text.weights' else ''}"
        ) from None


def bert_config(structure: TextEncoderConfig) -> dict[str, Any]:
    """The keyword arguments of transformers' BertConfig for a text encoder, without its vocabulary."""
    return {theirs: getattr(structure, ours) for ours, theirs in BERT_CONFIG.items()}


def check_vocabulary(
    pretrained: PretrainedBert, weights: str, vocab_size: int, vocabulary: Mapping[str, int] | None
) -> str:
    """Compare the weights' vocabulary with the prepared dataset's.

    vocabulary: token to id, of the dataset's tokenizer.

    Returns:
        A note for the user about what could not be compared; "" if everything was.

    Raises:
        UsageError: the vocabularies differ.
    """
    source = f"model.text.weights={weights}"
    advice = f"prepare the dataset again with --tokenizer {weights}"
    if pretrained.vocab_size != vocab_size:
        raise UsageError(
            f"{source} has a vocabulary of {pretrained.vocab_size} tokens, the prepared dataset one of {vocab_size}: "
            f"{advice}"
        )
    if vocabulary is None or pretrained.vocabulary is None:
        return " (no readable tokenizer beside them: only the number of its tokens was compared with the dataset's)"
    theirs, ours = pretrained.vocabulary, vocabulary
    others = sorted((number, token) for token, number in ours.items() if theirs.get(token) != number)
    if others:
        number, token = others[0]
        raise UsageError(
            f"{source} has other tokens than the prepared dataset: {len(others)} of {vocab_size} differ, the first is "
            f"{number}, {token!r} in the dataset: {advice}"
        )
    return ""


def _check_config(values: Mapping[str, Any], source: str) -> None:
    family = values.get("model_type", "bert")
    if family != "bert":
        raise UsageError(f"{source} is a model of the family {family!r}, not BERT: give one whose model_type is bert")
    if values.get("position_embedding_type", "absolute") != "absolute":
        kind = values["position_embedding_type"]
        raise UsageError(f"{source} has position_embedding_type={kind}: only absolute positions are known here")
    for name in ("is_decoder", "add_cross_attention"):
        if values.get(name):
            raise UsageError(f"{source} has {name}=true: it is a decoder; give an encoder")
    activation = values.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise UsageError(f"{source} has hidden_act={activation}: known are {', '.join(ACTIVATIONS)}")


def _check_loading(info: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str) -> None:
    missing = sorted(info["missing_keys"])
    unknown = sorted(key for key in info["unexpected_keys"] if not _HEADS.fullmatch(key))
    if missing:
        besides = f", and has {len(unknown)} besides: {named(unknown)}" if unknown else ""
        raise UsageError(
            f"{source} lacks {len(missing)} of the {len(tensors)} tensors that its config.json calls for: "
            f"{named(missing)}{besides}"
        )
    if unknown:
        raise UsageError(
            f"{source} has {len(unknown)} tensors that its config.json does not call for: {named(unknown)}"
        )
    misfits = sorted(info["mismatched_keys"])
    if misfits:
        names = [f"{name} has shape {list(got)}, wanted {list(wanted)}" for name, got, wanted in misfits]
        raise UsageError(f"{source} does not fit its config.json in {len(misfits)} tensors: {named(names)}")
    odd = nonfinite(tensors)
    if odd:
        raise UsageError(f"{source} has values that are not finite in {len(odd)} tensors: {named(odd)}")


def _vocabulary(found: HubName) -> Mapping[str, int] | None:
    from transformers import AutoTokenizer

    folder = Path(found.name)
    if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return None  # transformers would create one with special tokens only
    try:
        tokenizer = AutoTokenizer.from_pretrained(found.name, local_files_only=found.local, trust_remote_code=False)
        vocabulary: Mapping[str, int] = tokenizer.get_vocab()
        return vocabulary
    except Exception:  # missing or unreadable: transformers and tokenizers raise their own types
        return None
