"""The meaning of each prototype: what the training sentences that read it say."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.evaluation.bank_purity import NAMING, bank_purity, prototype_rows
from prior_fast.evaluation.read_sentences import draw_studies, read_sentences
from prior_fast.evaluation.statements import OTHER
from prior_fast.files import write_json
from prior_fast.pictures.config import PictureInputs
from prior_fast.pictures.page import Picture, Section
from prior_fast.plotting.figures import TRAINED, VALIDATED, new_figure, save
from prior_fast.plotting.words import one_line

KEY, TITLE = "prototypes", "The prototypes"
FILE, TABLE_FILE = "prototype-use.png", "prototypes.json"
STUDIES = 300
SENTENCE = 300  # characters of a sentence in the table
ROWS, ROWS_OTHER = 25, 5  # rows of the table: prototypes that stand for a finding, and for none


def prototypes_section(inputs: PictureInputs) -> Section:
    """How often each prototype is read and how pure it is, and a table of those that are read most."""
    if inputs.no_bank:
        return Section(KEY, TITLE, absent=inputs.no_bank)
    splits = inputs.dataset.info["splits"]
    split = "train" if splits.get("train", {}).get("studies") else inputs.dataset.split
    dataset = PreparedDataset.open(inputs.dataset.root, split)
    studies = draw_studies(dataset, STUDIES, inputs.config.seed)
    read = read_sentences(inputs.encoder, [dataset.sentences(int(study)) for study in studies])
    purity, rows = bank_purity(read, inputs.config.seed), prototype_rows(read)
    write_json(inputs.out / TABLE_FILE, {"split": split, "studies": len(studies), **purity, "table": rows})
    _use_picture(inputs, rows, read.prototypes)
    text = (
        f"{purity['sentences']} sentences of {len(studies)} reports of the {split} split were encoded in their reports "
        "and looked up without noise. A prototype stands for what most of its sentences say, by their words: finding, "
        "side, and whether it is stated, possible or denied. Its purity is the share of its sentences that say exactly "
        "this. The table has the most frequently read prototypes that stand for a finding, and a few that stand for "
        f"none (other), with their most frequent sentences; {TABLE_FILE} has all. {_summary(purity)} "
        "`prior-fast evaluate bank` measures the same on more sentences."
    )
    used = purity["prototypes_used"]
    caption = (
        f"{used} of {read.prototypes} prototypes are the strongest prototype of at least one sentence. The orange part "
        "says something else than most sentences of the prototype."
    )
    return Section(
        KEY,
        TITLE,
        text,
        (Picture(FILE, caption),),
        ("prototype", "sentences", "finding", "side", "presence", "purity", "typical sentences"),
        tuple(_cells(row) for row in shown_rows(rows)),
        facts={
            "sentences": purity["sentences"],
            "prototypes": read.prototypes,
            "prototypes_read": used,
            "purity": purity[NAMING]["purity"],
        },
    )


def _summary(purity: dict[str, Any]) -> str:
    finding = purity[NAMING]["purity"]["finding"]
    if finding["value"] is None:
        return ""
    return (
        f"Among the sentences that name a finding, {finding['value']:.0%} name the one that most sentences of their "
        f"prototype name; in random groups of the same sizes {finding['chance']:.0%}, in as many clusters of the "
        f"embeddings (k-means) {finding['k_means']:.0%}."
    )


def shown_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the table on the page: first prototypes that stand for a finding, then some that stand for none."""
    named = [row for row in rows if row["finding"] != OTHER]
    return [*named[:ROWS], *[row for row in rows if row["finding"] == OTHER][:ROWS_OTHER]]


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    names = ("prototype", "sentences", "finding", "side", "presence")
    typical = " / ".join(one_line(text, SENTENCE) for text in row["typical"])
    return (*(row[name] for name in names), round(row["purity"], 2), typical)


def _use_picture(inputs: PictureInputs, rows: list[dict[str, Any]], prototypes: int) -> None:
    figure = new_figure(10, 2.8)
    axes: Axes = figure.subplots()
    places = np.arange(len(rows))
    count = np.array([row["sentences"] for row in rows])
    same = count * np.array([row["purity"] for row in rows])
    axes.bar(places, same, width=1.0, color=TRAINED, label="say what most say")
    axes.bar(places, count - same, width=1.0, bottom=same, color=VALIDATED, label="say something else")
    axes.set_xlim(-0.5, prototypes - 0.5)
    axes.set_xlabel("prototypes, most read first")
    axes.set_ylabel("sentences")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper right")
    save(figure, inputs.out / FILE)
