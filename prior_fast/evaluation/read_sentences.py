"""The training sentences with what they say, and the prototype that each of them reads.

Letters in shapes: S sentences, K prototypes, D embedding width.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.evaluation.encode import Advance, Encoder
from prior_fast.evaluation.statements import Statement, read_statement
from prior_fast.radiology.tokenizer import tokenize


@dataclass(frozen=True)
class ReadSentences:
    """Sentences of whole reports, encoded in their reports as in training, and looked up in the bank without noise.

    Attributes:
        sentences: the texts, S of them; a sentence of several reports is there several times.
        statements: what each of them says.
        embedded: float32 [S, D], before the bank.
        prototype: int64 [S], the strongest prototype of each.
        prototypes: K.
    """

    sentences: list[str]
    statements: list[Statement]
    embedded: np.ndarray
    prototype: np.ndarray
    prototypes: int

    @cached_property
    def members(self) -> dict[int, np.ndarray]:
        """For each prototype that is read, the numbers of the sentences that read it."""
        return {int(index): np.flatnonzero(self.prototype == index) for index in np.unique(self.prototype)}

    @cached_property
    def majority(self) -> dict[int, Statement]:
        """For each prototype that is read, what most of its sentences say: findings, presences and side.

        Of equally frequent statements it is the one that comes first in the reports.
        """
        return {
            index: Counter(self.statements[row] for row in rows).most_common(1)[0][0]
            for index, rows in self.members.items()
        }


def draw_studies(dataset: PreparedDataset, count: int, seed: int) -> np.ndarray:
    """Up to `count` studies of the split at random, in the dataset's order: int64; 0 is all of them."""
    if not count or count >= len(dataset):
        return np.arange(len(dataset))
    return np.sort(np.random.default_rng([seed, len(dataset)]).choice(len(dataset), count, replace=False))


def with_tokens(encoder: Encoder, reports: Sequence[Sequence[str]]) -> list[list[str]]:
    """The reports without sentences that have no token, which the encoder would leave out."""
    tokens = iter(tokenize(encoder.tokenizer, [sentence for report in reports for sentence in report]))
    return [[sentence for sentence in report if len(next(tokens))] for report in reports]


def read_sentences(encoder: Encoder, reports: Sequence[Sequence[str]], advance: Advance | None = None) -> ReadSentences:
    """Encode reports and look their sentences up. Sentences beyond the model's limit of tokens are left out."""
    kept = [report for report in with_tokens(encoder, reports) if report]
    texts = encoder.texts(kept, advance)
    # A report that is too long lost its last sentences.
    counts = texts.cu_sentences.diff().tolist()
    sentences = [sentence for report, count in zip(kept, counts) for sentence in report[:count]]
    said = {sentence: read_statement(sentence) for sentence in set(sentences)}
    return ReadSentences(
        sentences,
        [said[sentence] for sentence in sentences],
        texts.sentences.float().cpu().numpy(),
        strongest(encoder, texts.sentences).cpu().numpy(),
        encoder.model.sentence_bank.embed.num_embeddings,
    )


@torch.inference_mode()
def strongest(encoder: Encoder, rows: Tensor) -> Tensor:
    """The prototype that each row [S, D] reads most, without noise: int64 [S]."""
    return encoder.model.sentence_bank(rows, encoder.tau).index
