"""The meaning of each prototype, shown by the training sentences nearest to it."""

import numpy as np
import torch
from matplotlib.ticker import MaxNLocator
from torch.nn import functional as F

from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.files import write_json
from prior_fast.pictures.config import PictureInputs
from prior_fast.pictures.embedding import draw_sentences
from prior_fast.pictures.page import Picture, Section
from prior_fast.plotting.figures import TRAINED, new_figure, save

KEY, TITLE = "prototypes", "The prototypes"
FILE, TABLE_FILE = "prototype-use.png", "prototypes.json"
SENTENCES = 4000
NEAREST = 3
ROWS = 15


def prototypes_section(inputs: PictureInputs) -> Section:
    """How often each prototype is read, and the sentences nearest to the prototypes that are read most."""
    if inputs.no_bank:
        return Section(KEY, TITLE, absent=inputs.no_bank)
    splits = inputs.dataset.info["splits"]
    split = "train" if splits.get("train", {}).get("studies") else inputs.dataset.split
    dataset = PreparedDataset.open(inputs.dataset.root, split)
    sentences = draw_sentences(dataset, SENTENCES, inputs.rng(5))
    use, nearest, similarity = read_prototypes(inputs, sentences)
    table = [
        {
            "prototype": index,
            "sentences_that_read_it": int(use[index]),
            "nearest": [
                {"sentence": sentences[column], "cosine": round(float(value), 4)}
                for column, value in zip(nearest[index], similarity[index])
            ],
        }
        for index in range(len(use))
    ]
    write_json(inputs.out / TABLE_FILE, {"split": split, "sentences": len(sentences), "prototypes": table})
    _use_picture(inputs, use)
    order = np.argsort(-use, kind="stable")[:ROWS]
    rows = [
        (int(index), int(use[index]), "; ".join(item["sentence"] for item in table[index]["nearest"]))
        for index in order
        if use[index]
    ]
    text = (
        f"{len(sentences)} different sentences of the {split} split were looked up without noise. The table has the "
        "most frequently read prototypes, with the sentences whose embeddings are nearest by cosine. "
        f"{TABLE_FILE} has all prototypes."
    )
    read = int((use > 0).sum())
    caption = f"{read} of {len(use)} prototypes are the strongest prototype of at least one sentence."
    return Section(
        KEY,
        TITLE,
        text,
        (Picture(FILE, caption),),
        ("prototype", "sentences", "nearest sentences"),
        tuple(rows),
        facts={"sentences": len(sentences), "prototypes": len(use), "prototypes_read": read},
    )


@torch.inference_mode()
def read_prototypes(inputs: PictureInputs, sentences: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Look sentences up in the bank of K prototypes.

    Returns:
        use int64 [K], the number of sentences whose strongest prototype it is; nearest int64 [K, n] and similarity
        float32 [K, n], the sentences nearest to each prototype by cosine, and the cosines.
    """
    bank = inputs.encoder.model.sentence_bank
    embedded = inputs.encoder.texts([[sentence] for sentence in sentences]).sentences
    index = bank(embedded, inputs.encoder.tau).index
    use = torch.bincount(index, minlength=bank.embed.num_embeddings)
    cosine = F.normalize(bank.embed.weight.float(), dim=-1) @ F.normalize(embedded.float(), dim=-1).T
    similarity, nearest = cosine.topk(min(NEAREST, len(sentences)), dim=1)
    return use.cpu().numpy(), nearest.cpu().numpy(), similarity.cpu().numpy()


def _use_picture(inputs: PictureInputs, use: np.ndarray) -> None:
    figure = new_figure(10, 2.8)
    axes = figure.subplots()
    axes.bar(np.arange(len(use)), np.sort(use)[::-1], width=1.0, color=TRAINED)
    axes.set_xlim(-0.5, len(use) - 0.5)
    axes.set_xlabel("prototypes, most read first")
    axes.set_ylabel("sentences")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    save(figure, inputs.out / FILE)
