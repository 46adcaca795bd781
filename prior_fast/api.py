"""PRIOR in Python: encode images and reports, and show the attention of a sentence."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prior_fast.errors import UsageError
from prior_fast.evaluation.attention_map import attention_maps, upsample
from prior_fast.evaluation.encode import EmbeddedImages, EmbeddedTexts, Encoder
from prior_fast.radiology.arrays import array_image
from prior_fast.radiology.report import MIMIC, TOLERANT, report_sentences
from prior_fast.radiology.xray import UnreadableImage, read_xray, to_square
from prior_fast.training.checkpoint import open_checkpoint

ImageLike = str | Path | Image.Image | np.ndarray | Tensor


class PRIOR:
    """A trained model with its tokenizer, in evaluation mode.

    Attributes:
        encoder: the encoder that the commands use; `encoder.model` is the torch module.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    @classmethod
    def from_pretrained(cls, path: str | Path, device: str = "auto") -> "PRIOR":
        """The model of a run's folder (its newest checkpoint), of one checkpoint, or of converted weights.

        Args:
            device: "auto", "cpu" or "cuda".

        Raises:
            UsageError: there is no checkpoint, it can't be read, or the device is not available.
        """
        return cls(Encoder(open_checkpoint(Path(path)), device))

    def encode_images(self, images: ImageLike | Sequence[ImageLike]) -> EmbeddedImages:
        """Encode X-rays of any size: files, Pillow images, NumPy arrays or tensors.

        Files may have any format that `prior_fast.radiology.xray.read_xray` reads. Arrays and tensors are bool, integer
        or float [H, W], [H, W, 1] or [1, H, W], or uint8 colors [H, W, 3]. Gray values are scaled to 0..255 as
        `prior_fast.radiology.gray_levels.gray_levels` says, in a file, a Pillow image or an array alike.

        Returns:
            `patches` [N, 49, D] and `whole` [N, D], not normalized.

        Raises:
            ValueError: there is no image, or an image can't be read, has a NaN or infinite value, or is an array of
                another shape or dtype; the message names it.
        """
        given = [images] if isinstance(images, ImageLike) else list(images)
        if not given:
            raise ValueError("images is empty: give at least one")
        pixels = np.stack([_pixels(image, index) for index, image in enumerate(given)])
        return self.encoder.images(pixels, range(len(pixels)))

    def encode_reports(self, reports: str | Sequence[str | Sequence[str]]) -> EmbeddedTexts:
        """Encode reports. Each is a text, or a list of sentences, which are not split further.

        Of a text with section headers, English or Spanish, only findings and impression are used: by the rules of
        MIMIC-CXR if these find one of them, else by tolerant rules (`radiology.tolerant_sections`). Of a text without
        headers all sentences are used.

        A report beyond the model's limit of tokens (`data.max_tokens` of its training) is cut: its first whole
        sentences are kept. A `UserWarning` then says how many reports were cut; `cut_texts` says what each of them
        lost.

        Returns:
            `sentences` [S, D], `prototypes` [S, D], `reports` [N, D], not normalized, and `cu_sentences` [N + 1].

        Raises:
            ValueError: there is no report; a report is neither a text nor a list of texts, has no word, or has headers
                but no text to use. The message names it.
        """
        given = [reports] if isinstance(reports, str) else list(reports)
        if not given:
            raise ValueError("reports is empty: give at least one")
        sentences = [_sentences(report, index) for index, report in enumerate(given)]
        found = self.encoder.texts(sentences, name="reports", quiet=True)
        if found.cut:
            warnings.warn(self.encoder.cut_note(found.cut_texts, len(given), "reports"), UserWarning, stacklevel=2)
        return found

    def attention(self, image: ImageLike, sentence: str, size: int = 224) -> Tensor:
        """The attention of a sentence over an image (supplement 4.2); the mean of both directions is our choice.

        Args:
            size: side of the result; 7 is the model's own resolution.

        Returns:
            [size, size] float32 on the CPU. Weights are sigmoids: each between 0 and 1, not normalized over the image.

        Raises:
            UsageError: the model was trained without local alignment.
        """
        if not self.encoder.aligns_locally:
            raise UsageError("the model was trained with model.use_local_alignment=false: it has no trained attention")
        patches = self.encode_images(image).patches
        read = self.encode_reports([[sentence]]).prototypes
        maps = attention_maps(self.encoder.model, patches, read)
        return (upsample(maps, size) if size != maps.shape[-1] else maps)[0].cpu()

    def similarity(self, images: EmbeddedImages, reports: EmbeddedTexts) -> Tensor:
        """Cosines of whole images and reports: [N, M] float32 on the CPU."""
        whole, pooled = (torch.nn.functional.normalize(x.float(), dim=-1) for x in (images.whole, reports.reports))
        return (whole @ pooled.T).cpu()


def _pixels(image: ImageLike, index: int) -> np.ndarray:
    """uint8 [224, 224], converted as by `prior-fast prepare`."""
    name = f"images[{index}]"
    try:
        if isinstance(image, str | Path):
            name += f": {image}"
            return read_xray(Path(image))[0]
        if isinstance(image, Image.Image):
            return to_square(image)
        if isinstance(image, Tensor):
            image = image.detach().cpu()
            # NumPy has no bfloat16; float32 has all its values.
            image = (image.float() if image.dtype == torch.bfloat16 else image).numpy()
        if isinstance(image, np.ndarray):
            return to_square(array_image(image))
    except UnreadableImage as error:
        raise ValueError(f"{name}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None
    raise ValueError(f"{name} is a {type(image).__name__}, wanted a path, a Pillow image, an array or a tensor")


def _sentences(report: str | Sequence[str], index: int) -> list[str]:
    """The sentences of a report: those given, or those of the text's findings and impression, or of the whole text."""
    if not isinstance(report, str):
        if isinstance(report, bytes) or not isinstance(report, Iterable):
            raise ValueError(f"reports[{index}] is a {type(report).__name__}, wanted a text or a list of sentences")
        given = list(report)
        wrong = [type(sentence).__name__ for sentence in given if not isinstance(sentence, str)]
        if wrong:
            raise ValueError(f"reports[{index}] has a {wrong[0]} among its sentences, wanted texts")
        _check_letters(" ".join(given), index)
        return given
    _check_letters(report, index)
    found = report_sentences(report, MIMIC) or report_sentences(report, TOLERANT)
    if found is None:
        raise ValueError(
            f"reports[{index}] has section headers, but neither findings nor impression nor text without a header: "
            f"{report[:200]!r}; give its sentences as a list to use them as they are"
        )
    if not found:
        raise ValueError(f"reports[{index}] has no sentence: {report[:200]!r}")
    return found


def _check_letters(text: str, index: int) -> None:
    """Raise ValueError for half of a character (a lone surrogate), which no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"reports[{index}] has half of a character, {text[error.start]!r}: decode the text as UTF-8"
        ) from None
