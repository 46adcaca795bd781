"""The files that the pages speak of, in small. They are made once, by the commands themselves where these make them."""

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from prior_fast.cli.main import main
from tests.measure.demo.results import results, write
from tests.pages.rules import shrink

Get = Callable[[str], Path]  # the path of an artefact of a kind

# What a name on the pages is: behind an option for files of others, and elsewhere.
RAW = {
    **dict.fromkeys(("phantom", "xrays", "images", "mimic-cxr-jpg/2.0.0", "mimic-cxr/2.0.0"), "mimic"),
    **{"rsna": "raw-rsna", "rsna-pneumonia": "raw-rsna", "siim": "raw-siim", "siim-acr": "raw-siim"},
    "CheXpert-v1.0-small": "raw-chexpert",
}
MADE = {
    **{name: name for name in ("prepared", "run", "chexpert", "chexpert5x200", "rsna", "siim", "mine", "demo")},
    **{name: name for name in ("studies.csv", "labels.csv", "captions.csv", "a.jpg", "b.jpg")},
    **{name: name for name in ("resnet50.pt", "prior_resnet50.pt", "total_prior.ckpt", "bio-clinical-bert")},
    "rsna-prepared": "rsna",
}


def make(kind: str, out: Path, get: Get) -> None:
    """Make the artefact of a kind at the path `out`.

    get: gives the path of another kind, made before if it must be.
    """
    if kind in _COMMANDS:
        for line in _COMMANDS[kind]:
            words = [get(word[1:-1]) if word.startswith("<") else word for word in line.split()]
            small, codes = shrink([str(word).replace("OUT", str(out)) for word in words])
            assert main(small) in codes, " ".join(small)
    else:
        _MAKERS[kind](out, get)


# `<kind>` is the path of another artefact.
_COMMANDS = {
    "mimic": ["phantom --out OUT --seed 5"],
    **{f"raw-{name}": [f"phantom --layout {name} --out OUT --seed 3"] for name in ("chexpert", "rsna", "siim")},
    "prepared": ["prepare mimic --images <mimic> --out OUT"],
    **{name: [f"prepare {name} --images <raw-{name}> --out OUT"] for name in ("chexpert", "rsna", "siim")},
    "chexpert5x200": ["prepare chexpert5x200 --images <raw-chexpert> --out OUT"],
    "mine": ["prepare labels --table <labels.csv> --images <mimic> --out OUT"],
    "run": ["train --preset tiny --data <prepared> --out OUT"],
}


def _demo(out: Path, get: Get) -> None:
    """What `make demo` leaves behind, with results that a small model does not reach."""
    write(out, results())
    for kind in ("prepared", "run"):
        shutil.copytree(get(kind), out / kind)


def _frontal(mimic: Path) -> list[tuple[str, str]]:
    """Paths of images below the folder, and the texts of their reports."""
    return [
        (str(image.relative_to(mimic)), (image.parent.parent / f"{image.parent.name}.txt").read_text(encoding="utf-8"))
        for image in sorted(mimic.glob("files/*/*/*/*.jpg"))
    ]


def _table(out: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with out.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def _labels(out: Path, get: Get) -> None:
    rows = [(name, number % 2, int(number % 3 == 0)) for number, (name, _) in enumerate(_frontal(get("mimic")))]
    _table(out, ("image", "Tuberculosis", "Nodule"), rows)


def _captions(out: Path, get: Get) -> None:
    _table(out, ("name", "caption"), [(name, " ".join(text.split())) for name, text in _frontal(get("mimic"))])


def _image(number: int) -> Callable[[Path, Get], object]:
    return lambda out, get: shutil.copyfile(get("mimic") / _frontal(get("mimic"))[number][0], out)


def _bert(out: Path, get: Get) -> None:
    """A BERT with the tokenizer of a prepared dataset, as transformers saves it."""
    import torch
    from transformers import BertConfig, BertModel

    from prior_fast.radiology.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(str(get("prepared") / "tokenizer"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(out)
    tokenizer.save_pretrained(out)


def _resnet(channels: int) -> Callable[[Path, Get], None]:
    """A narrow ResNet with a block in each stage: three colours and a classifier, as torchvision's, or one."""

    def write(out: Path, get: Get) -> None:
        import torch

        from prior_fast.model.image_encoder import ResNet

        torch.manual_seed(0)
        state = ResNet((1, 1, 1, 1), 8).state_dict()
        if channels == 3:
            state["conv1.weight"] = state["conv1.weight"].repeat(1, 3, 1, 1) / 3
            state.update({"fc.weight": torch.zeros(5, 256), "fc.bias": torch.zeros(5)})
        torch.save(state, out)

    return write


def _released(out: Path, get: Get) -> None:
    """A file with the released code's names."""
    import torch

    from tests.released_files import released_names, small_released

    words = json.loads((get("prepared") / "tokenizer/tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    torch.save({"state_dict": released_names(small_released(len(words)))}, out)


_MAKERS: dict[str, Callable[[Path, Get], object]] = {
    "demo": _demo,
    "studies.csv": lambda out, get: _table(out, ("image", "report"), _frontal(get("mimic"))),
    "labels.csv": _labels,
    "captions.csv": _captions,
    "a.jpg": _image(0),
    "b.jpg": _image(1),
    "bio-clinical-bert": _bert,
    "resnet50.pt": _resnet(3),
    "prior_resnet50.pt": _resnet(1),
    "total_prior.ckpt": _released,
}
