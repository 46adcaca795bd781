"""Compares weights that prior-fast or transformers wrote with their own description."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors

from prior_fast.config import to_dict
from prior_fast.errors import UsageError
from prior_fast.model.pretrained_bert import read_bert
from prior_fast.model.weights import misfit
from prior_fast.training.checkpoint import open_checkpoint
from prior_fast.weights.convert import model_state

_MODEL = "model.safetensors"


@dataclass(frozen=True)
class Own:
    """Weights and their description.

    Attributes:
        path: the folder.
        kind: the kind of weights, for the user.
        tensors: the number of tensors.
        facts: the content of the description.
        problem: why the weights do not fit the description, in one line; None if they do.
    """

    path: Path
    kind: str
    tensors: int
    facts: dict[str, Any]
    problem: str | None

    def report(self) -> dict[str, Any]:
        """All attributes in JSON types."""
        return {
            "file": str(self.path),
            "kind": self.kind,
            "tensors": self.tensors,
            **self.facts,
            "problem": self.problem,
        }


def inspect_own(path: Path) -> Own | None:
    """Inspect a run, a checkpoint, a file of a checkpoint, or a folder of transformers; None for any other file.

    Raises:
        UsageError: a folder of another kind, or one that can't be read.
    """
    if path.is_file():
        if not (path.parent / "checkpoint.json").is_file():
            return None
        if path.name != _MODEL:
            raise UsageError(f"{path} is a part of the checkpoint {path.parent}: give the folder, or its {_MODEL}")
        return _checkpoint(path.parent)
    if not path.is_dir():
        return None
    if (path / "config.json").is_file() and not (path / "checkpoints").is_dir():
        return _bert(path)
    if (path / "text_encoder").is_dir():
        inside = ", ".join(str(file) for file in sorted(path.glob("*.safetensors")))
        raise UsageError(f"{path} holds exported encoders: give {path / 'text_encoder'} or {inside}")
    return _checkpoint(path)


def _checkpoint(path: Path) -> Own:
    checkpoint = open_checkpoint(path)
    tensors = checkpoint.tensors(_MODEL)
    problem = misfit(model_state(checkpoint.structure, checkpoint.vocab_size), tensors)
    stage, step = checkpoint.position.stage, checkpoint.position.total_steps
    return Own(
        path=checkpoint.path,
        kind=f"a checkpoint of prior-fast (stage {stage}, step {step}, layout={checkpoint.structure.layout})",
        tensors=len(tensors),
        facts={"structure": to_dict(checkpoint.structure), "vocab_size": checkpoint.vocab_size},
        problem=problem and f"{checkpoint.path / _MODEL} does not fit the model of its checkpoint.json: it {problem}",
    )


def _bert(path: Path) -> Own:
    try:
        bert = read_bert(str(path), "PATH")
    except UsageError as error:
        return Own(path, "a folder of transformers", _count(path), {}, str(error))
    facts = {"structure": to_dict(bert.structure), "vocab_size": bert.vocab_size}
    sizes = f"{bert.structure.layers} layers of {bert.structure.hidden_size}, {bert.vocab_size} tokens"
    return Own(path, f"a BERT for model.text.weights ({sizes})", len(bert.tensors), facts, None)


def _count(path: Path) -> int:
    try:
        with safetensors.safe_open(path / _MODEL, "pt") as file:
            return len(file.keys())
    except (OSError, safetensors.SafetensorError):
        return 0
