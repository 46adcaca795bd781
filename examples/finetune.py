"""Fine-tune a pre-trained image encoder on labels of your own, in an ordinary PyTorch training loop.

The table is a csv with a column of image paths, and a column of 1, 0, -1 (uncertain) or blank for each label:

    python finetune.py --checkpoint run --table labels.csv --images xrays --labels Tuberculosis,Nodule --patient patient
    python finetune.py --made-up        # makes X-rays, reports, labels and a small pre-trained run by itself

It prints the AUROC on images of other patients: of a linear layer on the frozen encoder, of the fine-tuned encoder,
and of the same encoder trained from random weights.
"""

import argparse
import copy
import csv
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset

import prior_fast
from prior_fast.errors import UsageError
from prior_fast.model.image_encoder import ImageEncoder
from prior_fast.radiology.xray import UnreadableImage, read_xray

VALUES = {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "-1": 0.0, "-1.0": 0.0, "": 0.0}  # uncertain counts as absent
Normalized = Callable[[np.ndarray], Tensor]  # uint8 [B, 224, 224] -> z-scores [B, 1, 224, 224], as in pre-training
CHEXPERT = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"]


class XRays(Dataset):
    """Items are pixels uint8 [224, 224] and labels [L]. Files may have any format that `prior-fast prepare` reads."""

    def __init__(self, table: Path, args: argparse.Namespace) -> None:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        columns = list(rows[0]) if rows else []
        for name in filter(None, (args.image, args.patient, *args.labels)):
            if name not in columns:
                raise UsageError(f"{table} has no column {name!r}; it has {', '.join(columns) or 'no row'}")
        for number, row in enumerate(rows, start=1):
            for name in args.labels:
                if row[name].strip() not in VALUES:
                    raise UsageError(f"{table}, row {number}: {name} is {row[name][:20]!r}; give 1, 0, -1 or blank")
        self.paths = [args.images / row[args.image] for row in rows]
        self.labels = torch.tensor([[VALUES[row[name].strip()] for name in args.labels] for row in rows])
        self.patients = [row[args.patient] if args.patient else row[args.image] for row in rows]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        try:
            return torch.tensor(read_xray(self.paths[row])[0]), self.labels[row]
        except UnreadableImage as error:
            raise UsageError(f"{self.paths[row]}: {error}") from None


class Classifier(nn.Module):
    """A pre-trained image encoder with its attention pool, and a linear layer."""

    def __init__(self, encoder: ImageEncoder, labels: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.out_channels, labels)

    def forward(self, images: Tensor) -> Tensor:
        """Normalized images [B, 1, 224, 224] -> logits [B, labels]."""
        _, pooled = self.encoder(images)  # the patches [B, 49, C] and the whole image [B, C]
        return self.head(pooled)


def split_by_patient(data: XRays) -> tuple[Subset, Subset]:
    """About three quarters of the patients to train with, the others to test on; the same on every machine."""
    test = [row for row, name in enumerate(data.patients) if hashlib.sha256(name.encode()).digest()[0] < 64]
    return Subset(data, sorted(set(range(len(data))) - set(test))), Subset(data, test)


def train(model: Classifier, data: Dataset, normalized: Normalized, args: argparse.Namespace, frozen: bool) -> None:
    """An ordinary training loop: AdamW, a cosine, binary cross-entropy. `frozen` trains the linear layer alone."""
    torch.manual_seed(args.seed)
    model.encoder.requires_grad_(not frozen)
    rates = [{"params": model.encoder.parameters(), "lr": args.learning_rate}] if not frozen else []
    optimizer = torch.optim.AdamW([{"params": model.head.parameters(), "lr": 1e-2}, *rates])
    batches = DataLoader(data, args.batch, shuffle=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * len(batches))
    for _ in range(args.epochs):
        model.train()
        model.encoder.train(not frozen)  # a frozen encoder keeps its batch statistics
        for images, labels in batches:
            logits = model(normalized(images.numpy()))
            loss = F.binary_cross_entropy_with_logits(logits, labels.to(logits.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.inference_mode()
def test(model: Classifier, data: Dataset, normalized: Normalized, args: argparse.Namespace) -> list[float]:
    """The AUROC of each label; nan if all images have the same answer."""
    model.eval()
    parts = [(model(normalized(images.numpy())).cpu(), labels) for images, labels in DataLoader(data, args.batch)]
    scores, truth = (torch.cat(part).T.numpy() for part in zip(*parts))
    return [float(roc_auc_score(y, x)) if 0 < y.mean() < 1 else float("nan") for x, y in zip(scores, truth)]


def make_up(folder: Path, args: argparse.Namespace) -> None:
    """Make up studies, pre-train on them, and make up other patients with labels, in CheXpert's layout."""
    commands = (
        f"phantom --out phantom --size 224 --seed 1 --studies {args.studies}",
        "prepare mimic --images phantom --out prepared",
        "train --preset tiny --data prepared --out run",
        f"phantom --layout chexpert --out CheXpert-v1.0-small --size 224 --seed 2 --studies {args.studies // 2}",
    )
    for command in commands:
        print(f"prior-fast {command}", flush=True)
        words = [sys.executable, "-m", "prior_fast.cli.main", *command.split()]
        if subprocess.run(words, cwd=folder, stdout=subprocess.DEVNULL).returncode:
            raise UsageError(f"prior-fast {command} failed")
    args.checkpoint, args.images, args.image, args.labels = folder / "run", folder, "Path", CHEXPERT
    args.table, args.test_table = (folder / "CheXpert-v1.0-small" / name for name in ("train.csv", "valid.csv"))
    args.limit = args.limit or 150


def compare(args: argparse.Namespace) -> None:
    """Train and test the three classifiers, and print their AUROCs."""
    pretrained = prior_fast.PRIOR.from_pretrained(args.checkpoint, args.device).encoder
    data, encoder = XRays(args.table, args), pretrained.model.image_encoder
    for_training, for_test = split_by_patient(data)
    if args.test_table:
        for_training, for_test = (Subset(each, range(len(each))) for each in (data, XRays(args.test_table, args)))
    torch.manual_seed(args.seed)
    some = torch.randperm(len(for_training)).tolist()[: args.limit]
    if not len(some) or not len(for_test):
        raise UsageError(f"{args.table} has too few patients to train and to test; give --test-table too")
    print(f"{len(some)} images to train with, {len(for_test)} images of other patients to test on", flush=True)

    fresh = ImageEncoder(pretrained.checkpoint.structure.image, encoder.layout)  # the same network with random weights
    starts = {"linear probe": encoder, "fine-tuned": encoder, "random start": fresh}
    scores = {}
    for name, start in starts.items():
        model = Classifier(copy.deepcopy(start), len(args.labels)).to(pretrained.device)
        train(model, Subset(for_training, some), pretrained.normalized, args, frozen=name == "linear probe")
        scores[name] = test(model, for_test, pretrained.normalized, args)
        if args.save and name == "fine-tuned":
            torch.save({"labels": args.labels, "state": model.state_dict()}, args.save)

    print(f"{'AUROC':20s}" + "".join(f"{name:>14s}" for name in scores))
    for label, row in zip([*args.labels, "mean"], zip(*([*each, np.nanmean(each)] for each in scores.values()))):
        print(f"{label:20s}" + "".join(f"{score:14.3f}" for score in row))


def main() -> None:
    """Read the arguments and compare."""
    parser = argparse.ArgumentParser(description="Fine-tune a pre-trained image encoder on labels of a csv.")
    parser.add_argument("--checkpoint", type=Path, help="a run of prior-fast train, or one checkpoint")
    parser.add_argument("--table", type=Path, help="csv with paths of images and labels")
    parser.add_argument(
        "--test-table", type=Path, help="csv to test on (default: a quarter of the patients of --table)"
    )
    parser.add_argument("--images", type=Path, default=Path(), help="folder to which the paths are relative")
    parser.add_argument("--image", default="image", metavar="COLUMN", help="column of the paths (default: image)")
    parser.add_argument("--patient", metavar="COLUMN", help="column of the patients (default: each image is a patient)")
    parser.add_argument("--labels", type=lambda text: text.split(","), metavar="COLUMN,...", help="columns of labels")
    parser.add_argument("--limit", type=int, metavar="N", help="train with N images (default: all; made-up: 150)")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="of the encoder; 1e-4 suits a ResNet-50")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the fine-tuned classifier there")
    parser.add_argument("--made-up", action="store_true", help="make everything up, in a temporary folder")
    parser.add_argument("--studies", type=int, default=1200, help="number of made-up studies (default: 1200)")
    args = parser.parse_args()
    if not args.made_up and not (args.checkpoint and args.table and args.labels):
        parser.error("give --checkpoint, --table and --labels, or --made-up to try it without any of them")
    if min(args.epochs, args.batch, args.studies, 1 if args.limit is None else args.limit) < 1:
        parser.error("--epochs, --batch, --studies and --limit must be 1 or more")
    try:
        with tempfile.TemporaryDirectory() as folder:
            if args.made_up:
                make_up(Path(folder), args)
            compare(args)
    except UsageError as error:
        parser.exit(2, f"finetune.py: {error}\n")
    except OSError as error:
        parser.exit(2, f"finetune.py: {error.filename}: {error.strerror}\n")


if __name__ == "__main__":
    main()
