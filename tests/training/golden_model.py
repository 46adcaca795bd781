"""A recording of the authors' whole model, and the model here with its weights.

The recording is an .npz file. Its weights, losses, gradients and running statistics come from the authors' own classes
at small widths, run in float64 on a CPU with the library versions that they name. Noise is off in it: no dropout, no
channel mask, no Gumbel noise. `meta.*` and the arrays' shapes give all sizes, so a recording of other sizes works too.

Names: `<mode>.*` are activations and losses in mode eval or train, `train.grad.*` gradients, `train.after.*` running
statistics after a step of stage 3, `trajectory.*` a short training run, `noise.*` the error of the authors' own float32
run. A large array is recorded as some of its entries (`#index`, `#values`) with its norm, maximum and shape.
"""

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from prior_fast.batch import PackedBatch, pack_reports
from prior_fast.cli.main import main
from prior_fast.config import RunConfig
from prior_fast.model.prior import PRIORModel
from prior_fast.training.checkpoint import Checkpoint, open_checkpoint
from prior_fast.training.stages import StepContext


class Recording:
    """The arrays of a recording, by name."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.arrays = {name: file[name] for name in file.files}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def meta(self, name: str) -> float:
        """One of the recording's settings."""
        return self.arrays[f"meta.{name}"].item()

    def names(self, prefix: str) -> list[str]:
        """What follows `prefix` in the names of the arrays, without the parts of a large array."""
        found = (name.removeprefix(prefix).split("#")[0] for name in self.arrays if name.startswith(prefix))
        return list(dict.fromkeys(found))

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays whose names begin with `prefix`, by what follows it."""
        return {name.removeprefix(prefix): x for name, x in self.arrays.items() if name.startswith(prefix)}

    def error(self, actual: Tensor, name: str) -> float:
        """The greatest difference from the array `name`, relative to the greatest entry; of a large one, also of norms.

        The shape must be the recorded one.
        """
        got = actual.detach().double().cpu().numpy()
        if name in self.arrays:
            want = self.arrays[name]
            assert got.shape == want.shape, (name, got.shape, want.shape)
            return float(np.abs(got - want).max() / np.abs(want).max())
        part = self.under(f"{name}#")
        assert got.shape == tuple(part["shape"]), (name, got.shape, part["shape"])
        difference = np.abs(got.flatten()[part["index"]] - part["values"]).max() / part["max"]
        return float(max(difference, abs(np.linalg.norm(got) / part["norm"] - 1)))

    def noise(self, name: str) -> float:
        """The error of the authors' float32 run: relative to the greatest entry."""
        return self.arrays[f"noise.{name}"].item()


class RecordedModel:
    """The model here with the recorded weights, and the recorded batch.

    The weights go through `prior-fast weights convert`. folder: for the files that it makes.
    """

    def __init__(self, recording: Recording, folder: Path) -> None:
        self.recording = recording
        self.checkpoint = converted(recording, folder)
        # The authors' name of each tensor of the state dict here, as the conversion reports it.
        self.authors_names: dict[str, str] = json.loads((folder / "converted" / "report.json").read_text())["used"]
        self._loaded = self.checkpoint.load_model()

    def model(self, dtype: torch.dtype, mode: str = "train") -> PRIORModel:
        """A fresh copy of the model; mode: "train" or "eval"."""
        return copy.deepcopy(self._loaded).to(dtype).train(mode == "train")

    def by_authors_names(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by the names of a state dict here -> by the authors' names."""
        return {self.authors_names[name]: tensor for name, tensor in tensors.items()}

    def batch(self, dtype: torch.dtype) -> PackedBatch:
        """The recorded images and reports, packed."""
        data = self.recording.under("batch.")
        lengths = np.split(data["tokens_of_sentence"], np.cumsum(data["sentences_of_report"])[:-1])
        reports = []
        for ids, mask, index, sizes in zip(data["input_ids"], data["attention_mask"], data["sentence_index"], lengths):
            ids, index = ids[mask == 1], index[mask == 1]
            # [CLS] and [SEP] belong to no sentence, every other token to the sentence that the lengths give.
            assert index.tolist() == [-1, *np.repeat(np.arange(len(sizes)) + 1, sizes), -1]
            reports.append(np.split(ids[1:-1], np.cumsum(sizes)[:-1]))
        cls_id, sep_id = ids[0].item(), ids[-1].item()
        numbers = torch.arange(len(reports))
        images = torch.tensor(data["images"], dtype=dtype)
        return pack_reports(reports, cls_id, sep_id).with_images(images, study_ids=numbers, image_rows=numbers)

    def config(self, compile: str = "off") -> RunConfig:
        """The settings of the recorded training: those of `released`, with the recording's weight decay."""
        decay = self.recording.meta("weight_decay")
        return dataclasses.replace(self.checkpoint.config, weight_decay=decay, precision="fp32", compile=compile)

    def step(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> StepContext:
        """Without noise, at the recorded temperature."""
        # As a tensor, since a compiled step would turn a number into a float32 tensor.
        return StepContext(tau=torch.tensor(self.recording.meta("tau"), dtype=dtype, device=device), seed=None)


def converted(recording: Recording, folder: Path) -> Checkpoint:
    """Write the recorded state dict as a file, convert it by the command, and set what no state dict tells."""
    state = {name: torch.from_numpy(x) for name, x in recording.under("state.").items()}
    torch.save(state, folder / "released.pt")
    tokenizer_of(int(recording.meta("vocab"))).save_pretrained(folder / "tokenizer")
    out = folder / "converted"
    words = ["weights", "convert", str(folder / "released.pt"), "--out", str(out)]
    assert main([*words, "--tokenizer", str(folder / "tokenizer")]) == 0
    facts = json.loads((out / "checkpoint.json").read_text())
    structure = facts["structure"]
    structure["text"] |= {"heads": int(recording.meta("text_heads")), "dropout": 0.0}
    structure["sentence_decoder"] |= {"heads": int(recording.meta("decoder_heads")), "dropout": 0.0}
    structure["image"] |= {"pool_heads": int(recording.meta("image_pool_heads"))}
    structure |= {"report_pool_heads": int(recording.meta("report_pool_heads"))}
    del facts["seal"]  # of the content before these changes
    (out / "checkpoint.json").write_text(json.dumps(facts))
    return open_checkpoint(out)


def tokenizer_of(size: int) -> PreTrainedTokenizerFast:
    """Any tokenizer of `size` tokens: the conversion compares only the number."""
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    words = [*special, *(f"word{number}" for number in range(size - len(special)))]
    vocabulary = {word: number for number, word in enumerate(words)}
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    model = models.WordLevel(vocabulary, unk_token="[UNK]")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), **dict(zip(names, special)))
