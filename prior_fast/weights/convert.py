"""Converts the authors' weight files to checkpoints of prior-fast."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from prior_fast.config import ImageEncoderConfig, ModelConfig, TextEncoderConfig, preset, to_dict
from prior_fast.errors import RunError, UsageError
from prior_fast.files import atomic_directory, write_json
from prior_fast.model.prior import PRIORModel
from prior_fast.model.weights import load_tensors, named, nonfinite
from prior_fast.radiology.tokenizer import load_tokenizer
from prior_fast.training.checkpoint import FORMAT, VERSION
from prior_fast.weights.names import Renamed, rename

# Mean and standard deviation of MIMIC-CXR's images (supplement 2.1).
IMAGE_MEAN, IMAGE_STD = 0.4755, 0.3011
# The released code keeps the temperature constant at this value.
TAU = 0.9
_HEAD_WIDTH = 64  # of BERT's attention heads


@dataclass(frozen=True)
class Inspected:
    """A weight file, compared with the model that it belongs to.

    Attributes:
        path: the file.
        tensors: the file's tensors by key.
        names: which keys are used, dropped or unknown.
        structure: config of the model that the file fills; None for an image encoder alone.
        vocab_size: vocabulary size of the text encoder; 0 for an image encoder alone.
        missing: keys of the model that the file does not have.
        misfits: tensors of the wrong shape: the model's key, the file's shape, the model's shape.
        nonfinite: keys of the file with values that are infinite or not a number.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    names: Renamed
    structure: ModelConfig | None
    vocab_size: int
    missing: tuple[str, ...]
    misfits: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    nonfinite: tuple[str, ...] = ()

    @property
    def problem(self) -> str | None:
        """Why the file can't be converted, in one line; None if it can."""
        if self.missing:
            return f"{self.path} lacks {len(self.missing)} tensors that the model needs: {named(self.missing)}"
        if self.misfits:
            name, got, wanted = self.misfits[0]
            return f"{self.path}: {name} has shape {list(got)}, the model's has {list(wanted)}"
        if self.names.unknown:
            count = len(self.names.unknown)
            return f"{self.path} has {count} tensors that no part of the model uses: {named(self.names.unknown)}"
        if self.nonfinite:
            count = len(self.nonfinite)
            return f"{self.path} has values that are not finite in {count} tensors: {named(self.nonfinite)}"
        return None

    def report(self) -> dict[str, Any]:
        """The comparison in JSON types."""
        return {
            "file": str(self.path),
            "kind": "image encoder" if self.names.image_only else "whole model",
            "used": self.names.used,
            "dropped": self.names.dropped,
            "unknown": self.names.unknown,
            "missing": list(self.missing),
            "misfits": [list(misfit) for misfit in self.misfits],
            "nonfinite": list(self.nonfinite),
            "layout": "released",
            "problem": self.problem,
        }


def inspect(path: Path) -> Inspected:
    """Compare a weight file with a model of the same sizes.

    Raises:
        UsageError: no such file, or no file of named tensors, or neither an image encoder nor a checkpoint of PRIOR.
    """
    tensors = load_tensors(path, "PATH")
    first = rename(tensors)
    if first.image_only:
        return _compared(path, tensors, _image_model(tensors), None, 0)
    here = {name: tensors[key] for name, key in first.used.items()}
    structure, vocab_size = structure_of_tensors(path, here)
    return _compared(path, tensors, model_state(structure, vocab_size), structure, vocab_size)


def convert(path: Path, out: Path, tokenizer: str | None) -> Inspected:
    """Write `out`: a checkpoint for every command, or, from an image encoder alone, a ResNet file for `train`.

    tokenizer: for a whole model, the Hugging Face name or folder of the tokenizer that its text encoder was trained
        with.

    Raises:
        UsageError: as in `inspect`; the tokenizer is missing or has another vocabulary size; `out` exists.
        RunError: a tensor is missing, unknown, not finite or of the wrong shape; nothing is written.
    """
    if out.exists():
        raise UsageError(f"--out {out}: it exists; give another folder")
    found = inspect(path)
    if found.problem:
        raise RunError(found.problem)
    tensors = {name: found.tensors[key].contiguous() for name, key in found.names.used.items()}
    if found.structure is None:
        with atomic_directory(out) as partial:
            plain = {name.removeprefix("image_encoder.encoder."): tensor for name, tensor in tensors.items()}
            safetensors.torch.save_file(plain, partial / "resnet50.safetensors")
            write_json(partial / "report.json", found.report())
        return found
    if tokenizer is None:
        raise UsageError("--tokenizer: a whole model needs its tokenizer: emilyalsentzer/Bio_ClinicalBERT, or a folder")
    loaded = load_tokenizer(tokenizer)
    if len(loaded) != found.vocab_size:
        raise UsageError(
            f"--tokenizer {tokenizer}: it has {len(loaded)} tokens, the weights {found.vocab_size}; give the tokenizer "
            "that they were trained with"
        )
    with atomic_directory(out) as partial:
        safetensors.torch.save_file(tensors, partial / "model.safetensors")
        loaded.save_pretrained(partial / "tokenizer")
        write_json(partial / "checkpoint.json", _facts(found))
        write_json(partial / "report.json", found.report())
    return found


def model_state(structure: ModelConfig, vocab_size: int) -> dict[str, Tensor]:
    """The state dict of a whole model, without values."""
    with torch.device("meta"):
        return dict(PRIORModel(structure, vocab_size).state_dict())


def _facts(found: Inspected) -> dict[str, Any]:
    config = preset("released")
    assert found.structure is not None
    return {
        "format": FORMAT,
        "version": VERSION,
        "position": {"stage": 3, "step": 0, "total_steps": 0},
        "config": to_dict(dataclasses.replace(config, model=found.structure)),
        "structure": to_dict(found.structure),
        "vocab_size": found.vocab_size,
        "tau": TAU,
        "image_mean": IMAGE_MEAN,
        "image_std": IMAGE_STD,
    }


def structure_of_tensors(path: Path, here: Mapping[str, Tensor]) -> tuple[ModelConfig, int]:
    """The released structure with the sizes of a whole model's tensors, and the vocabulary size.

    Raises:
        UsageError: a tensor that sizes are read from is missing.
    """
    released = preset("released").model
    try:
        words = here["text_encoder.encoder.embeddings.word_embeddings.weight"]
        wide = here["text_encoder.encoder.encoder.layer.0.intermediate.dense.weight"].shape[0]
        bank = here["sentence_bank.embed.weight"]
        queries = here["sentence_decoder.queries"].shape[1]
        decoder_wide = here["sentence_decoder.decoder.encoder.layer.0.intermediate.dense.weight"].shape[0]
        stem = here["image_encoder.encoder.conv1.weight"].shape[0]
    except KeyError as error:
        raise UsageError(
            f"{path} is neither an image encoder nor a whole model of PRIOR: it has no {error.args[0]}"
        ) from None
    width, hidden = bank.shape[1], words.shape[1]
    depths = _depths(here, r"image_encoder\.encoder\.") or ImageEncoderConfig().depths
    structure = dataclasses.replace(
        released,
        image=dataclasses.replace(ImageEncoderConfig(), depths=depths, width=stem, weights="random"),
        text=TextEncoderConfig(
            weights="random",
            hidden_size=hidden,
            layers=_count(here, r"text_encoder\.encoder\.encoder\.layer\.(\d+)\."),
            heads=max(1, hidden // _HEAD_WIDTH),
            intermediate_size=wide,
        ),
        bank=dataclasses.replace(released.bank, prototypes=bank.shape[0]),
        sentence_decoder=dataclasses.replace(
            released.sentence_decoder,
            layers=_count(here, r"sentence_decoder\.decoder\.encoder\.layer\.(\d+)\."),
            heads=max(1, width // _HEAD_WIDTH),
            intermediate_size=decoder_wide,
            queries=queries,
        ),
        embed_dim=width,
    )
    return structure, words.shape[0]


def _image_model(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of an image encoder with the file's depths and width, without values."""
    from prior_fast.model.image_encoder import ResNet

    depths = _depths(tensors, "") or ImageEncoderConfig().depths
    width = tensors["conv1.weight"].shape[0] if "conv1.weight" in tensors else ImageEncoderConfig().width
    with torch.device("meta"):
        state = ResNet(depths, width).state_dict()
    return {f"image_encoder.encoder.{name}": tensor for name, tensor in state.items()}


def _compared(
    path: Path, tensors: Mapping[str, Tensor], model: Mapping[str, Tensor], structure: ModelConfig | None, vocab: int
) -> Inspected:
    names = rename(tensors, model)
    shapes = {name: (tuple(tensors[key].shape), tuple(model[name].shape)) for name, key in names.used.items()}
    return Inspected(
        path=path,
        tensors=tensors,
        names=names,
        structure=structure,
        vocab_size=vocab,
        missing=tuple(name for name in model if name not in names.used),
        misfits=tuple((name, got, wanted) for name, (got, wanted) in shapes.items() if got != wanted),
        nonfinite=tuple(nonfinite({key: tensors[key] for key in names.used.values()})),
    )


def _depths(names: Mapping[str, Any], prefix: str) -> tuple[int, ...]:
    """The number of blocks in each stage of a ResNet, read from its keys."""
    counts = (_count(names, rf"{prefix}layer{stage}\.(\d+)\.") for stage in range(1, 5))
    return tuple(takewhile(bool, counts))


def _count(names: Mapping[str, Any], pattern: str) -> int:
    found = [int(match.group(1)) for match in map(re.compile(pattern).match, names) if match]
    return max(found, default=-1) + 1
