"""The options that all layouts of `prior-fast prepare` for images with reports share."""

from dataclasses import dataclass
from pathlib import Path

from prior_fast.errors import UsageError
from prior_fast.prepare.studies.plan import Source
from prior_fast.radiology.report import SECTION_RULES
from prior_fast.radiology.tokenizer import TRAIN_TOKENIZER
from prior_fast.radiology.xray import DECODES, EXACT


@dataclass(frozen=True)
class PrepareOptions:
    """What to prepare and how.

    Attributes:
        source: the layout, and where its files are.
        out: the folder of the new dataset.
        workers: number of decoding processes; 1 decodes in this process.
        strict: stop at the first file that is missing or broken.
        tokenizer: "train", or a Hugging Face name or folder.
        min_sentences: reports with fewer are left out.
        decode: how X-rays are decoded, "exact" or "fast" (see `radiology.xray.read_xray`).
        sections: how sections are found in a whole report (see `radiology.report.SECTION_RULES`).
    """

    source: Source
    out: Path
    workers: int = 1
    strict: bool = False
    tokenizer: str = TRAIN_TOKENIZER
    min_sentences: int = 4
    decode: str = EXACT
    sections: str = "mimic"

    @property
    def partial(self) -> Path:
        """The folder beside `out` that holds the files of an unfinished dataset."""
        return self.out.with_name(f"{self.out.name}.partial")

    @property
    def rejected(self) -> Path:
        """The file beside `out` that lists what was left out when no dataset could be made."""
        return self.out.with_name(f"{self.out.name}.rejected.csv")


def check_options(options: PrepareOptions) -> None:
    """Refuse invalid values.

    Raises:
        UsageError: a value is invalid; the message names the option.
    """
    if options.workers < 1:
        raise UsageError(f"--workers must be 1 or more, not {options.workers}")
    if options.min_sentences < 1:
        raise UsageError(f"--min-sentences must be 1 or more, not {options.min_sentences}")
    if options.decode not in DECODES:
        raise UsageError(f"--decode must be {' or '.join(DECODES)}, not {options.decode!r}")
    if options.sections not in SECTION_RULES:
        raise UsageError(f"--sections must be {' or '.join(SECTION_RULES)}, not {options.sections!r}")
    if options.out.exists() and not options.out.is_dir():
        raise UsageError(f"--out {options.out} is a file; give a folder that does not exist yet")
