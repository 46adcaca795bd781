"""The tokenizer of a prepared dataset: trained on its own reports, or one of Hugging Face's."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from prior_fast.console import busy
from prior_fast.console.download import find_on_hub, reason_of
from prior_fast.console.quiet import quiet_transformers
from prior_fast.errors import UsageError
from prior_fast.files.space import system_error

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# The name that stands for a tokenizer trained on the dataset's own reports.
TRAIN_TOKENIZER = "train"
VOCAB_SIZE = 4000
MIN_FREQUENCY = 2
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CONTINUING = "##"
_BATCH = 10_000
# A longer word is [UNK] whatever the vocabulary is.
_LONGEST_WORD = 100


def train_tokenizer(sentences: Sequence[str]) -> "PreTrainedTokenizerFast":
    """Train an uncased WordPiece tokenizer with BERT's normalization and splitting.

    The same sentences give the same tokenizer. The vocabulary has at most 4000 pieces, or more if there are more
    characters than that. Each piece occurs at least twice, except single characters. Words of more than 100 characters
    are left out: they never have pieces, and the trainer's time for a word is quadratic in its length.
    """
    from transformers import PreTrainedTokenizerFast  # slow to import, so late

    pipeline = _pipeline(models.WordPiece(unk_token="[UNK]", continuing_subword_prefix=_CONTINUING))
    sentences = [_without_long_words(pipeline, sentence) for sentence in sentences]
    # The trainer numbers pieces in the order of a hash map and breaks ties by number. Reserving every character first,
    # both as the start and as the continuation of a word, makes the numbers and thus the vocabulary reproducible.
    seen = {character for raw in set().union(*sentences) for character in pipeline.normalizer.normalize_str(raw)}
    alphabet = sorted(character for character in seen if not character.isspace())
    reserved = [*SPECIAL_TOKENS, *alphabet, *(_CONTINUING + character for character in alphabet)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=max(VOCAB_SIZE, len(reserved)),
        min_frequency=MIN_FREQUENCY,
        special_tokens=reserved,
        limit_alphabet=len(reserved),
        continuing_subword_prefix=_CONTINUING,
        show_progress=False,
    )
    pipeline.train_from_iterator(sentences, trainer)
    model = models.WordPiece(pipeline.get_vocab(), unk_token="[UNK]", continuing_subword_prefix=_CONTINUING)
    tokenizer = _pipeline(model)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.decoder = decoders.WordPiece(prefix=_CONTINUING)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **dict(zip(names, SPECIAL_TOKENS)))


def load_tokenizer(name: str) -> "PreTrainedTokenizerFast":
    """Load a fast tokenizer by its Hugging Face name or its folder. Code in its repository is never run.

    A name that can't be reached is refused within seconds (`prior_fast.console.download`).

    Raises:
        UsageError: the tokenizer can't be loaded, is not a fast one, or has no [CLS] or [SEP] token.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    advice = f"give another name or folder, or --tokenizer {TRAIN_TOKENIZER}"
    refusal = ""
    try:
        with busy(f"tokenizer {name}"), quiet_transformers():
            found = find_on_hub(name)
            refusal = found.refusal
            tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=found.local, trust_remote_code=False)
    except Exception as error:  # the hub client, transformers and tokenizers each raise their own types
        raise UsageError(f"--tokenizer {name}: it can't be loaded ({refusal or reason_of(error)}); {advice}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UsageError(f"--tokenizer {name}: it is not a fast tokenizer (it has no tokenizer.json); {advice}")
    missing = [token for token in ("cls_token", "sep_token") if getattr(tokenizer, token) is None]
    if missing:
        raise UsageError(f"--tokenizer {name}: it has no {' and no '.join(missing)}; {advice}")
    return tokenizer


def save_tokenizer(tokenizer: "PreTrainedTokenizerFast", folder: Path) -> None:
    """Write the files of a tokenizer into a folder, which is made if it is absent.

    Raises:
        OSError: a file can't be written.
    """
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:
        # tokenizers reports a failed write by a plain Exception.
        failed = None if isinstance(error, OSError) else system_error(error, folder)
        if failed is None:
            raise
        raise failed from error


def tokenize(tokenizer: "PreTrainedTokenizerFast", sentences: Sequence[str]) -> list[np.ndarray]:
    """The token ids of each sentence, without special tokens: int32 arrays, empty for a sentence without a token."""
    ids: list[np.ndarray] = []
    for begin in range(0, len(sentences), _BATCH):
        batch = list(sentences[begin : begin + _BATCH])
        encoded = tokenizer(batch, add_special_tokens=False, truncation=False, padding=False, verbose=False)
        ids += [np.array(sentence, np.int32) for sentence in encoded["input_ids"]]
    return ids


def _without_long_words(pipeline: Tokenizer, sentence: str) -> str:
    if len(sentence) <= _LONGEST_WORD or max(map(len, sentence.split()), default=0) <= _LONGEST_WORD:
        return sentence
    words = pipeline.pre_tokenizer.pre_tokenize_str(pipeline.normalizer.normalize_str(sentence))
    return " ".join(word for word, _ in words if len(word) <= _LONGEST_WORD)


def _pipeline(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer
