"""All pictures of a checkpoint, and the page that shows them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

from prior_fast.console import print_table, progress, stdout
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.evaluation.out_folder import refuse_inputs
from prior_fast.files import write_json
from prior_fast.files.claim import check_kind, claim_folder
from prior_fast.pictures.attention import attention_section
from prior_fast.pictures.cached_encoder import CachedEncoder
from prior_fast.pictures.config import PictureInputs, pictures_config
from prior_fast.pictures.embedding import embedding_section
from prior_fast.pictures.losses import losses_section
from prior_fast.pictures.page import Section, write_page
from prior_fast.pictures.prototypes import prototypes_section
from prior_fast.pictures.queries import queries_section, read_groups
from prior_fast.pictures.reconstruction import reconstruction_section
from prior_fast.pictures.zero_shot import refuse_prompts, zero_shot_section
from prior_fast.plotting.figures import STYLE
from prior_fast.training.checkpoint import Checkpoint, open_checkpoint

SECTIONS: tuple[Callable[[PictureInputs], Section], ...] = (
    zero_shot_section,
    attention_section,
    reconstruction_section,
    embedding_section,
    prototypes_section,
    queries_section,
    losses_section,
)


def make_pictures(checkpoint_path: Path, data: Path, out: Path, split: str, words: Sequence[str]) -> list[Section]:
    """Write the pictures, index.html and report.json into `out`, and print what was made.

    words: key=value settings of `PicturesConfig`.

    Raises:
        UsageError: a setting, the checkpoint or the dataset can't be used, or `out` holds something else.
        RunError: another process writes there, or values are not finite.
    """
    config = pictures_config(words)
    if config.sentences:
        read_groups(Path(config.sentences))  # reports an unreadable file before anything is drawn
    checkpoint = open_checkpoint(checkpoint_path)
    dataset = PreparedDataset.open(data, split, "full")
    refuse_prompts(checkpoint, dataset, config)
    refuse_inputs(out, checkpoint_path, data)
    check_kind(out, "pictures")
    encoder = CachedEncoder(checkpoint, config.device, config.batch_size)
    with claim_folder(out, "pictures"), progress() as bar, matplotlib.rc_context(STYLE):
        inputs, sections = PictureInputs(encoder, dataset, config, out), []
        task = bar.add_task("pictures", total=len(SECTIONS))
        for make in SECTIONS:
            bar.update(task, description=f"pictures, {make.__name__.removesuffix('_section').replace('_', ' ')}")
            sections.append(make(inputs))
            bar.advance(task)
        title, facts = "What the model has learned", describe(checkpoint, checkpoint_path, data, split, len(dataset))
        write_page(out, title, facts, sections)
        write_json(out / "report.json", report(sections, facts))
    print_table(
        f"pictures of {checkpoint.path.name}",
        ("section", "files"),
        [(section.title, made(section)) for section in sections],
    )
    stdout.print(f"{out / 'index.html'} shows them")
    return sections


def made(section: Section) -> str:
    """The files of a section, and the reason why it, or a part of it, was left out."""
    files = ", ".join(picture.file for picture in section.pictures)
    if not section.absent:
        return files
    return f"{files}; {section.absent}" if files else f"left out: {section.absent}"


def describe(checkpoint: Checkpoint, checkpoint_path: Path, data: Path, split: str, studies: int) -> str:
    """One line that names the model and the data."""
    position = checkpoint.position
    return (
        f"Checkpoint {checkpoint.path.name} of {checkpoint_path} (preset {checkpoint.config.preset}, stage "
        f"{position.stage}, {position.total_steps} steps); {studies} studies of the {split} split of {data}."
    )


def report(sections: Sequence[Section], facts: str) -> dict[str, object]:
    """The content of report.json: what was drawn and what was left out."""
    return {
        "description": facts,
        "page": "index.html",
        "sections": {
            section.key: {
                "files": [picture.file for picture in section.pictures],
                "left_out": section.absent or None,
                **section.facts,
            }
            for section in sections
        },
    }
