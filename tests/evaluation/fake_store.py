"""A small prepared dataset and checkpoints of random models, written file by file as docs/architecture.md says."""

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from prior_fast.config import apply_overrides, preset
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.files import sha256
from prior_fast.model.build import build_model
from prior_fast.radiology.labels import CHEXPERT_LABELS, FIVE_CLASSES
from prior_fast.radiology.tokenizer import tokenize, train_tokenizer
from prior_fast.training.checkpoint import Position
from prior_fast.training.checkpoint_writer import save_checkpoint

SENTENCES = {
    "Atelectasis": "There is {} bibasilar atelectasis .",
    "Cardiomegaly": "The heart is enlarged , cardiomegaly is {} .",
    "Consolidation": "A {} consolidation is seen in the left lower lobe .",
    "Edema": "Pulmonary edema is {} .",
    "Pleural Effusion": "A {} right pleural effusion is present .",
}
SEVERITIES = ("mild", "moderate", "severe")
COMMON = (
    "No pneumothorax .",
    "The mediastinal contours are clear .",
    "The bones are intact .",
    "Lungs are well expanded .",
)


def write_store(root: Path, per_class: int = 3, seed: int = 0, annotated: bool = True, train: int = 8) -> Path:
    """`per_class` test studies of each of the five classes, one with two of them, one with none."""
    rng = np.random.default_rng(seed)
    studies = [("train", [FIVE_CLASSES[i % 5]], 1) for i in range(train)]
    studies += [("test", [name], 1 + i % 2) for i in range(per_class) for name in FIVE_CLASSES]
    studies += [("test", ["Edema", "Cardiomegaly"], 1), ("test", [], 1)]
    reports = [
        [SENTENCES[name].format(rng.choice(SEVERITIES)) for name in present] + list(rng.permutation(COMMON))
        for _, present, _ in studies
    ]
    tokenizer = train_tokenizer([sentence for report in reports for sentence in report])
    tokens = tokenize(tokenizer, [sentence for report in reports for sentence in report])
    images = np.concatenate([_images(present, count, rng) for _, present, count in studies])
    root.mkdir(parents=True)
    np.save(root / "images.npy", images)
    np.save(root / "tokens.npy", np.concatenate(tokens))
    np.save(root / "sentence_offsets.npy", np.cumsum([0, *map(len, tokens)]).astype(np.int64))
    pq.write_table(_manifest(studies, reports), root / "manifest.parquet")
    if annotated:
        _write_annotations(root, studies)
    tokenizer.save_pretrained(root / "tokenizer")
    there = [path for path in root.rglob("*") if path.is_file()]
    files = {str(path.relative_to(root)): {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in there}
    counts = {split: {"studies": sum(s == split for s, _, _ in studies)} for split in ("train", "validate", "test")}
    info = {
        **{"format": "prior-fast-dataset", "version": 1, "studies": len(studies), "images": len(images)},
        **{"sentences": len(tokens), "tokens": sum(map(len, tokens)), "splits": counts, "files": files},
        **{"image_mean": float(images.mean() / 255), "image_std": float(images.std() / 255)},
        "tokenizer": {
            **{"vocab_size": len(tokenizer), "cls_id": tokenizer.cls_token_id, "sep_id": tokenizer.sep_token_id}
        },
    }
    (root / "dataset.json").write_text(json.dumps(info))
    return root


def _images(present: list[str], count: int, rng: np.random.Generator) -> np.ndarray:
    """Noise with a bright square whose position depends on the class."""
    images = rng.integers(0, 128, (count, 224, 224)).astype(np.uint8)
    for name in present:
        x = 40 * FIVE_CLASSES.index(name)
        images[:, 96:128, x : x + 32] = 255
    return images


def _manifest(studies: list, reports: list[list[str]]) -> pa.Table:
    images = np.cumsum([0, *(count for _, _, count in studies)])
    sentences = np.cumsum([0, *map(len, reports)])
    # Absent findings are blank, 0, or -1 if the 5x200 rule treats -1 as absent.
    absent = {"Cardiomegaly": -1.0, "Consolidation": 0.0}
    labels = {
        name: pa.array([1.0 if name in present else absent.get(name) for _, present, _ in studies], pa.float32())
        for name in CHEXPERT_LABELS
    }
    return pa.table(
        {
            "study_id": pa.array(range(50000000, 50000000 + len(studies)), pa.int64()),
            "subject_id": pa.array(range(10000000, 10000000 + len(studies)), pa.int64()),
            "split": [split for split, _, _ in studies],
            "dicom_ids": [
                [f"{index}-{image}" for image in range(count)] for index, (_, _, count) in enumerate(studies)
            ],
            **{"image_begin": images[:-1], "image_end": images[1:]},
            **{"sentence_begin": sentences[:-1], "sentence_end": sentences[1:]},
            "sentences": reports,
            **labels,
        }
    )


def _write_annotations(root: Path, studies: list) -> None:
    rows, image = [], 0
    for _, present, count in studies:
        for name in present:
            x, mask = 40 * FIVE_CLASSES.index(name), np.zeros((224, 224), bool)
            mask[96:128, x : x + 32] = True
            buffer = io.BytesIO()
            Image.fromarray(mask).save(buffer, "PNG")
            box = {"x": float(x), "y": 96.0, "width": 32.0, "height": 32.0}
            names = {"finding": name, "side": "right", "severity": "mild"}
            rows.append({"image_row": image, **names, **box, "mask": buffer.getvalue()})
        image += count
    pq.write_table(pa.Table.from_pylist(rows), root / "annotations.parquet")


def write_checkpoint(
    folder: Path, store: Path, stage: int, step: int = 4, seed: int = 0, name: str = "tiny", words: Sequence[str] = ()
) -> Path:
    """A checkpoint of a random tiny model, as if made after `step` steps of `stage` with 4 steps an epoch.

    words: settings of the run.
    """
    dataset = PreparedDataset.open(store, "train")
    config = dataclasses.replace(apply_overrides(preset("tiny"), words), preset=name)
    model, _ = build_model(config.model, dataset.vocab_size, seed)
    before = sum(4 * epochs for epochs in config.stage_epochs[: stage - 1])
    optimizer = torch.optim.Adam(model.parameters())
    position = Position(stage, step, before + step)
    return save_checkpoint(folder, position, config, model, optimizer, {}, dataset, tau=0.5)
