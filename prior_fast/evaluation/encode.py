"""Encoding images and texts for evaluations and pictures.

Letters in shapes: N images, P patches, M texts, S sentences, D embedding width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from prior_fast.batch import PackedBatch, pack_reports
from prior_fast.console import busy, stderr
from prior_fast.data.loader import cut_report
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import RunError, UsageError
from prior_fast.radiology.normalize import normalize
from prior_fast.radiology.tokenizer import tokenize
from prior_fast.training.checkpoint import Checkpoint
from prior_fast.training.distributed import choose_device

Advance = Callable[[int], object]
# Starts a progress bar with a name and a total, and returns the function that advances it.
Track = Callable[[str, int], Advance]


def no_track(name: str, total: int) -> Advance:
    """A `Track` that shows no progress."""
    return lambda count: None


@dataclass(frozen=True)
class EmbeddedImages:
    """patches [N, P, D] and whole [N, D], float32, on the encoder's device, not normalized.

    The patches' projection is untrained in models without local alignment, unless they reconstruct.
    """

    patches: Tensor
    whole: Tensor


@dataclass(frozen=True)
class CutText:
    """A text that exceeded the model's limit: its index, and its sentences and tokens before (given) and after (kept).

    Tokens are counted without [CLS] and [SEP].
    """

    index: int
    sentences_given: int
    sentences_kept: int
    tokens_given: int
    tokens_kept: int


@dataclass(frozen=True)
class EmbeddedTexts:
    """Texts of one or more sentences, float32, on the encoder's device.

    Attributes:
        sentences: [S, D], before the bank.
        prototypes: [S, D], what the sentences read from the bank; without a trained bank, the sentences themselves.
        reports: [M, D], pooled from the prototypes, not normalized.
        cu_sentences: [M + 1] int32, offsets of the texts in the sentences.
        cut: the number of texts that exceeded the model's limit and lost their last sentences.
        cut_texts: what each of them lost.
    """

    sentences: Tensor
    prototypes: Tensor
    reports: Tensor
    cu_sentences: Tensor
    cut: int
    cut_texts: tuple[CutText, ...] = ()


class Encoder:
    """A checkpoint's model on a device, in evaluation mode: no noise, no masking, no augmentation.

    Attributes:
        uses_bank: whether the bank was trained (stage 2 and later, unless model.use_bank=false) and is read.
        aligns_locally: whether the local alignment was trained, which the local score and attention maps need.
        tau: the bank's temperature when the checkpoint was written.

    Raises:
        UsageError: the checkpoint's files can't be read, or the device is not available.
        RunError: by `images` and `texts`: an embedding is not finite.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto", batch_size: int = 64) -> None:
        self.checkpoint = checkpoint
        self.device = choose_device(device)
        self.batch_size = batch_size
        with busy(f"reading {checkpoint.path.name}"):
            self.model = checkpoint.load_model().to(self.device).eval()
            self.tokenizer = _tokenizer(checkpoint)
        self.uses_bank = self.model.config.reads_bank(checkpoint.position.stage)
        self.aligns_locally = self.model.config.use_local_alignment
        self.tau = checkpoint.tau
        self._told: set[str] = set()

    @torch.inference_mode()
    def images(
        self, images: np.ndarray, rows: Sequence[int] | np.ndarray, advance: Advance | None = None
    ) -> EmbeddedImages:
        """Encode rows of images uint8 [., 224, 224]; `advance` gets the number of images after each batch."""
        parts = []
        for first in range(0, len(rows), self.batch_size):
            batch = np.asarray(rows[first : first + self.batch_size])
            parts.append(self.model.encode_images(self.normalized(images[batch])))
            if advance:
                advance(len(batch))
        whole, patches = torch.cat([part.whole for part in parts]), torch.cat([part.patches for part in parts])
        self.require_finite("embeddings", whole, patches)
        return EmbeddedImages(patches, whole)

    def normalized(self, images: np.ndarray) -> Tensor:
        """uint8 [N, 224, 224] -> [N, 1, 224, 224], normalized as in the model's training."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)[:, None].float() / 255
        return normalize(pixels, self.checkpoint.image_mean, self.checkpoint.image_std)

    @torch.inference_mode()
    def texts(
        self,
        texts: Sequence[Sequence[str]],
        advance: Advance | None = None,
        *,
        name: str = "texts",
        quiet: bool = False,
    ) -> EmbeddedTexts:
        """Encode texts, each a sequence of sentences, with the checkpoint's tokenizer.

        Sentences without a token are left out. Of a text beyond the model's limit of tokens the first whole sentences
        are kept, and a note on standard error says so, once for the same texts.

        Args:
            advance: gets the number of texts after each batch.
            name: what errors and the note call the texts.
            quiet: print no note; the caller shows `cut_note`.

        Raises:
            ValueError: a text has no token.
        """
        reports, cut = self._tokenized(texts, name)
        note = self.cut_note(cut, len(texts), name)
        if note and not quiet and note not in self._told:
            self._told.add(note)
            stderr.print(note)
        sentences, prototypes, pooled, counts = [], [], [], [0]
        for first in range(0, len(reports), self.batch_size):
            batch = self._packed(reports[first : first + self.batch_size])
            encoded = self.model.encode_sentences(batch)
            read = self.read_bank(encoded)
            sentences.append(encoded)
            prototypes.append(read)
            pooled.append(self.model.pool_report(read, batch.cu_sentences, batch.max_sentences))
            counts += batch.cu_sentences.diff().tolist()
            if advance:
                advance(len(batch))
        offsets = torch.tensor(counts, device=self.device).cumsum(0).int()
        found = torch.cat(sentences), torch.cat(prototypes), torch.cat(pooled)
        self.require_finite("embeddings", *found)
        return EmbeddedTexts(*found, offsets, len(cut), cut)

    def require_finite(self, what: str, *values: Tensor | np.ndarray) -> None:
        """Refuse values of this checkpoint that are infinite or not a number: every metric of them would be made up.

        what: what they are, in the plural.

        Raises:
            RunError: some are.
        """
        for each in map(torch.as_tensor, values):
            # A finite sum means finite values. If it is not finite, it may have overflowed.
            if not each.sum().isfinite() and not each.isfinite().all():
                raise RunError(
                    f"the {what} of {self.checkpoint.path} are not finite: its weights are damaged, or too large for "
                    "the model; use another checkpoint"
                )

    def cut_note(self, cut: Sequence[CutText], count: int, name: str = "texts") -> str:
        """One line on the texts that were cut, `count` texts in all; empty if none was."""
        if not cut:
            return ""
        first, limit = cut[0], self.checkpoint.config.data.max_tokens
        if first.sentences_kept < first.sentences_given:
            kept = f"{first.sentences_kept} of {first.sentences_given} sentences"
        else:
            kept = f"{first.tokens_kept} of {first.tokens_given} tokens"
        return (
            f"{len(cut)} of {count} {name} cut: the model was trained on at most {limit} tokens with [CLS] and [SEP] "
            f"(data.max_tokens={limit}), so whole sentences are kept up to there; the first is {name}[{first.index}], "
            f"with {kept} kept"
        )

    def read_bank(self, sentences: Tensor) -> Tensor:
        """Sentences [S, D] -> prototypes [S, D], without noise; the sentences themselves without a trained bank."""
        return self.model.sentence_bank(sentences, self.tau).output if self.uses_bank else sentences

    def _tokenized(
        self, texts: Sequence[Sequence[str]], name: str
    ) -> tuple[list[list[np.ndarray]], tuple[CutText, ...]]:
        ids = iter(tokenize(self.tokenizer, [sentence for text in texts for sentence in text]))
        limit = self.checkpoint.config.data.max_tokens
        reports, cut = [], []
        for index, text in enumerate(texts):
            sentences = [tokens for tokens in (next(ids) for _ in text) if len(tokens)]
            if not sentences:
                raise ValueError(f"{name}[{index}] has no token of the checkpoint's tokenizer: {' '.join(text)!r}")
            kept = cut_report(sentences, limit)
            reports.append(kept)
            tokens_kept, tokens_given = sum(map(len, kept)), sum(map(len, sentences))
            if tokens_kept < tokens_given:
                cut.append(CutText(index, len(sentences), len(kept), tokens_given, tokens_kept))
        return reports, tuple(cut)

    def _packed(self, reports: Sequence[Sequence[np.ndarray]]) -> PackedBatch:
        text = pack_reports(reports, self.tokenizer.cls_token_id, self.tokenizer.sep_token_id)
        none = torch.zeros(len(reports), dtype=torch.int64)
        batch = text.with_images(torch.empty(len(reports), 1, 0, 0), study_ids=none, image_rows=none)
        return batch.to(self.device, non_blocking=False)


def first_image_rows(dataset: PreparedDataset, studies: np.ndarray) -> np.ndarray:
    """The row of each study's first frontal image: int64 [N]."""
    return np.array([dataset.image_rows(int(study))[0] for study in studies], np.int64)


def _tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerFast:
    try:
        return checkpoint.tokenizer()
    except Exception as error:  # transformers and tokenizers each raise their own types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"{checkpoint.path / 'tokenizer'} can't be read ({reason}); use another checkpoint") from error
