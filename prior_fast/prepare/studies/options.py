"""What `prior-fast prepare` is asked to do."""

from dataclasses import dataclass
from pathlib import Path

from prior_fast.errors import UsageError
from prior_fast.radiology.tokenizer import TRAIN_TOKENIZER
from prior_fast.radiology.xray import DECODES, EXACT


@dataclass(frozen=True)
class PrepareOptions:
    """What to prepare and how.

    Attributes:
        images: root of the tree of images, or its `files` folder.
        out: the folder of the dataset to make.
        reports: as `images`, for the reports; None where they lie with the images.
        workers: processes that decode; 1 works in this process.
        strict: stop at the first file that is missing or broken.
        tokenizer: "train", or a Hugging Face name or folder.
        min_sentences: reports with fewer are left out.
        decode: how X-rays are decoded, "exact" or "fast" (see `radiology.xray.read_xray`).
    """

    images: Path
    out: Path
    reports: Path | None = None
    workers: int = 1
    strict: bool = False
    tokenizer: str = TRAIN_TOKENIZER
    min_sentences: int = 4
    decode: str = EXACT

    @property
    def partial(self) -> Path:
        """The folder, beside that of the dataset, that holds what is not a whole dataset yet."""
        return self.out.with_name(f"{self.out.name}.partial")


def check_options(options: PrepareOptions) -> None:
    """Refuse values that no run can use.

    Raises:
        UsageError: one of them; names the option.
    """
    if options.workers < 1:
        raise UsageError(f"--workers must be 1 or more, not {options.workers}")
    if options.min_sentences < 1:
        raise UsageError(f"--min-sentences must be 1 or more, not {options.min_sentences}")
    if options.decode not in DECODES:
        raise UsageError(f"--decode must be {' or '.join(DECODES)}, not {options.decode!r}")
    if options.out.exists() and not options.out.is_dir():
        raise UsageError(f"--out {options.out} is a file; give a folder that does not exist yet")
