"""Converts the authors' weight files to checkpoints of prior-fast."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prior_fast.config import ImageEncoderConfig, ModelConfig, to_dict
from prior_fast.console import busy
from prior_fast.errors import RunError, UsageError
from prior_fast.files import atomic_directory, write_json
from prior_fast.files.facts import file_facts
from prior_fast.files.sealed import write_sealed
from prior_fast.files.tensors import save_tensors
from prior_fast.model.image_encoder import ResNet
from prior_fast.model.prior import PRIORModel
from prior_fast.model.weights import named, nonfinite
from prior_fast.radiology.tokenizer import load_tokenizer, save_tokenizer
from prior_fast.training.checkpoint import FORMAT, VERSION
from prior_fast.weights.attention_gather import folded
from prior_fast.weights.names import Renamed, rename
from prior_fast.weights.read import read_weights
from prior_fast.weights.recorded import Recorded, recorded
from prior_fast.weights.structure import image_settings, image_structure, structure_of_tensors

# Mean and standard deviation of MIMIC-CXR's images (supplement 2.1).
IMAGE_MEAN, IMAGE_STD = 0.4755, 0.3011
RESNET50_FILE, RESNET_FILE = "resnet50.safetensors", "resnet.safetensors"
_RESNET = "image_encoder.encoder."
_AUTHORS_GATHER = "item_gather.attention_pool."


@dataclass(frozen=True)
class Inspected:
    """A weight file, compared with the model that it belongs to.

    Attributes:
        path: the file.
        tensors: the file's tensors by key.
        names: which keys are used, dropped or unknown.
        image: config of the image encoder that the file fills.
        structure: config of the model that the file fills; None for an image encoder alone.
        vocab_size: vocabulary size of the text encoder; 0 for an image encoder alone.
        state: what the file tells of its training; None for an image encoder alone.
        missing: keys of the model that the file does not have.
        misfits: tensors of the wrong shape: the model's key, the file's shape, the model's shape.
        nonfinite: keys of the file with values that are infinite or not a number.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    names: Renamed
    image: ImageEncoderConfig
    structure: ModelConfig | None
    vocab_size: int
    state: Recorded | None
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
            "settings": image_settings(self.image) if self.names.image_only else [],
            **self._of_training(),
            "problem": self.problem,
        }

    def _of_training(self) -> dict[str, Any]:
        if self.state is None or self.structure is None:
            return {}
        return {
            "stage": self.state.stage,
            "stage_from": self.state.evidence,
            "tau": self.state.tau,
            "sentence_pool": self.structure.sentence_pool,
        }


def inspect(path: Path, stage: int | None = None) -> Inspected:
    """Compare a weight file with a model of the same sizes.

    stage: the stage that was trained last, if the file does not tell it.

    Raises:
        UsageError: no such file, or no file of named tensors; neither an image encoder nor a checkpoint of PRIOR; it
            was trained in a way that can't be run here.
    """
    tensors, facts = read_weights(path)
    first = rename(tensors)
    if first.image_only:
        return _compared(path, tensors, image_structure(tensors, source=path))
    here = {name: tensors[key] for name, key in first.used.items()}
    structure, vocab_size = structure_of_tensors(path, here)
    state = recorded(path, facts, stage)
    tensors, attends = _with_folded_gather(tensors)
    if attends and state.pool == "mean":
        raise UsageError(f"{path} was trained with gahter_pool='avg', but has tensors of {_AUTHORS_GATHER[:-1]}")
    structure = dataclasses.replace(
        structure,
        sentence_pool="attention" if attends or state.pool == "attention" else "mean",
        bank=dataclasses.replace(state.config.model.bank, prototypes=structure.bank.prototypes),
    )
    return _compared(path, tensors, structure.image, structure, vocab_size, state)


def convert(path: Path, out: Path, tokenizer: str | None, stage: int | None = None) -> Inspected:
    """Write `out`: a checkpoint for every command, or, from an image encoder alone, a ResNet file for `train`.

    tokenizer: for a whole model, the Hugging Face name or folder of the tokenizer that its text encoder was trained
        with.
    stage: as in `inspect`.

    Raises:
        UsageError: as in `inspect`; the tokenizer is missing or has another vocabulary size; `out` exists.
        RunError: a tensor is missing, unknown, not finite or of the wrong shape; nothing is written.
    """
    if out.exists():
        raise UsageError(f"--out {out}: it exists; give another folder")
    found = inspect(path, stage)
    if found.problem:
        raise RunError(found.problem)
    # Tensors of a file may share their memory, which safetensors refuses to write.
    tensors = {name: found.tensors[key].clone() for name, key in found.names.used.items()}
    if found.structure is None:
        with atomic_directory(out) as partial:
            plain = {name.removeprefix(_RESNET): tensor for name, tensor in tensors.items()}
            save_tensors(partial / resnet_file(found), plain)
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
    with busy(f"writing {out.name}"), atomic_directory(out) as partial:
        save_tensors(partial / "model.safetensors", tensors)
        save_tokenizer(loaded, partial / "tokenizer")
        write_json(partial / "report.json", found.report())
        write_sealed(partial / "checkpoint.json", {**_facts(found), "files": file_facts(partial)})
    return found


def resnet_file(found: Inspected) -> str:
    """The name of the file that `convert` makes of an image encoder alone."""
    return RESNET_FILE if image_settings(found.image) else RESNET50_FILE


def model_state(structure: ModelConfig, vocab_size: int) -> dict[str, Tensor]:
    """The state dict of a whole model, without values."""
    with torch.device("meta"):
        return dict(PRIORModel(structure, vocab_size).state_dict())


def _facts(found: Inspected) -> dict[str, Any]:
    assert found.structure is not None and found.state is not None
    config = found.state.config
    tokens = min(config.data.max_tokens, found.structure.text.positions)
    data = dataclasses.replace(config.data, max_tokens=tokens)
    return {
        "format": FORMAT,
        "version": VERSION,
        "position": {"stage": found.state.stage, "step": 0, "total_steps": 0},
        "config": to_dict(dataclasses.replace(config, model=found.structure, data=data)),
        "structure": to_dict(found.structure),
        "vocab_size": found.vocab_size,
        "tau": found.state.tau,
        "image_mean": IMAGE_MEAN,
        "image_std": IMAGE_STD,
    }


def _with_folded_gather(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """The tensors, with those of an attention pool as the model here needs them, and whether there are any."""
    gather = {key.removeprefix(_AUTHORS_GATHER): x for key, x in tensors.items() if key.startswith(_AUTHORS_GATHER)}
    projection = {name: tensors.get(f"local_text_projection.{name}") for name in ("weight", "bias")}
    whole = all(f"{name}.{kind}" in gather for name in ("query", "key") for kind in ("weight", "bias"))
    if not whole or any(x is None for x in projection.values()):
        return dict(tensors), bool(gather)  # what is missing is named later
    new = folded(gather, {name: x for name, x in projection.items() if x is not None})
    return {**tensors, **{f"{_AUTHORS_GATHER}{name}": x for name, x in new.items()}}, True


def _image_model(image: ImageEncoderConfig) -> dict[str, Tensor]:
    """The state dict of an image encoder alone, without values."""
    with torch.device("meta"):
        state = ResNet(image.depths, image.width).state_dict()
    return {f"{_RESNET}{name}": tensor for name, tensor in state.items()}


def _compared(
    path: Path,
    tensors: Mapping[str, Tensor],
    image: ImageEncoderConfig,
    structure: ModelConfig | None = None,
    vocab_size: int = 0,
    state: Recorded | None = None,
) -> Inspected:
    model = _image_model(image) if structure is None else model_state(structure, vocab_size)
    names = rename(tensors, model)
    for name, key in names.used.items():
        if model[name].is_floating_point() != tensors[key].is_floating_point():
            kinds = [str(x.dtype).removeprefix("torch.") for x in (tensors[key], model[name])]
            raise UsageError(f"{path}: {key} holds {kinds[0]}, the model's tensor {kinds[1]}")
    shapes = {name: (tuple(tensors[key].shape), tuple(model[name].shape)) for name, key in names.used.items()}
    return Inspected(
        path=path,
        tensors=tensors,
        names=names,
        image=image,
        structure=structure,
        vocab_size=vocab_size,
        state=state,
        missing=tuple(name for name in model if name not in names.used),
        misfits=tuple((name, got, wanted) for name, (got, wanted) in shapes.items() if got != wanted),
        nonfinite=tuple(nonfinite({key: tensors[key] for key in names.used.values()})),
    )
