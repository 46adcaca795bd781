"""Looks for the findings of the demo's test X-rays by the sentences of their own reports, and draws some of them:

    python -m prior_fast.bench.demo.own_sentences demo --out demo-sentences.json --picture docs/sentences.png

For each annotated finding it takes the first sentence of the study's report that states this finding and no other, and
plays the pointing game with it: does the attention of this sentence over the X-ray peak inside the annotation? The
picture shows studies with two findings: the X-ray, and the attention of each of the two sentences over it. The studies
are the first of the test split in which both sentences hit.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.evaluation.attention_map import attention_maps, upsample
from prior_fast.evaluation.encode import Encoder
from prior_fast.evaluation.pointing import Target, play, targets
from prior_fast.evaluation.statements import FINDINGS, read_statement
from prior_fast.files import write_json
from prior_fast.hardware.machine import describe_machine
from prior_fast.plotting.overlay import Scale, show_overlay
from prior_fast.plotting.sheet import Sheet
from prior_fast.plotting.words import wrap
from prior_fast.training.checkpoint import open_checkpoint

KIND = "demo-sentences"
SHOWN, WORDS_WIDTH = 2, 22  # studies in the picture, characters in a line above an image


@dataclass(frozen=True)
class Stated:
    """A finding of an X-ray, and the sentence of its report that states it."""

    study: int
    target: Target
    sentence: str


def stated_findings(dataset: PreparedDataset) -> list[Stated]:
    """The annotated findings of the split that a sentence of the own report states alone, by the order of images."""
    study_of = {row: study for study in range(len(dataset)) for row in dataset.image_rows(study)}
    found = []
    for target in targets(dataset.annotations(), FINDINGS):
        study = study_of.get(target.image_row)
        if study is None:
            continue
        for sentence in dataset.sentences(study):
            if read_statement(sentence).stated == {target.finding}:
                found.append(Stated(study, target, sentence))
                break
    return found


def attention_of(encoder: Encoder, dataset: PreparedDataset, stated: Sequence[Stated]) -> np.ndarray:
    """The attention of each sentence over its image: float32 [N, 224, 224]."""
    rows = sorted({each.target.image_row for each in stated})
    places = {row: place for place, row in enumerate(rows)}
    patches = encoder.images(dataset.images, rows).patches
    texts = sorted({each.sentence for each in stated})
    prototypes = encoder.texts([[text] for text in texts], quiet=True).prototypes
    of_image = [places[each.target.image_row] for each in stated]
    of_sentence = [texts.index(each.sentence) for each in stated]
    return upsample(attention_maps(encoder.model, patches[of_image], prototypes[of_sentence])).cpu().numpy()


def measure(stated: Sequence[Stated], maps: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """The pointing game over all findings and for each, and whether each maximum lies inside: bool [N]."""
    game = play(maps, np.stack([each.target.mask for each in stated]))
    names = np.array([each.target.finding for each in stated])

    def summary(chosen: np.ndarray) -> dict[str, float]:
        return {
            "count": int(chosen.sum()),
            "hit_rate": float(game["hit"][chosen].mean()),
            "chance": float(game["chance"][chosen].mean()),
            "contrast": float(np.nanmedian(game["contrast"][chosen])),
        }

    each = {name: summary(names == name) for name in FINDINGS if (names == name).any()}
    return {"all": summary(np.ones(len(names), dtype=bool)), "findings": each}, game["hit"] == 1


def draw(dataset: PreparedDataset, stated: Sequence[Stated], maps: np.ndarray, hits: np.ndarray, path: Path) -> None:
    """The first studies in which two findings are hit: the X-ray, and the attention of both sentences."""
    images: dict[int, list[int]] = {}
    for index in np.flatnonzero(hits).tolist():
        images.setdefault(stated[index].target.image_row, []).append(index)
    shown = [(row, found[:2]) for row, found in images.items() if len(found) >= 2][:SHOWN]
    sheet = Sheet(3 * len(shown), above=[4], below=[0])
    for block, (row, found) in enumerate(shown):
        image, first = dataset.image(row), 3 * block
        sheet.above(0, first, "X-ray")
        sheet.image(0, first, image)
        for column, index in enumerate(found, start=first + 1):
            sheet.above(0, column, wrap(f"“{stated[index].sentence}”", WORDS_WIDTH, lines=4))
            own = Scale(float(maps[index].min()), float(maps[index].max()), "attention weight")
            show_overlay(sheet, 0, column, image, maps[index], own)
            sheet.outline(0, column, stated[index].target.mask)
    sheet.save(path)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="own_sentences"
    )
    parser.add_argument("demo", type=Path, metavar="FOLDER", help="the folder of `make demo`: has run and prepared")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the result file")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="a PNG file")
    args = parser.parse_args(words)
    checkpoint = open_checkpoint(args.demo / "run")
    dataset = PreparedDataset.open(args.demo / "prepared", split="test")
    stated = stated_findings(dataset)
    maps = attention_of(Encoder(checkpoint, "cpu"), dataset, stated)
    result, hits = measure(stated, maps)
    run = json.loads((args.demo / "run" / "metrics.json").read_text(encoding="utf-8"))
    result = {
        "studies": len(dataset),
        "training_seconds": run["seconds"],
        "training_steps": run["total_steps"],
        **result,
    }
    if args.picture:
        draw(dataset, stated, maps, hits, args.picture)
    write_json(args.out, {"kind": KIND, **result, "machine": describe_machine()})
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
