"""Reading the tokenizer of a prepared dataset or of a checkpoint from its folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from prior_fast.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def read_tokenizer(folder: Path, vocab_size: int, advice: str) -> "PreTrainedTokenizerFast":
    """The tokenizer in a folder; nothing is downloaded, and no code of the folder is run.

    Args:
        vocab_size: the tokens that it must have, special ones included.
        advice: what the user can do if it can't be used, the end of the message.

    Raises:
        UsageError: it can't be read, is no fast tokenizer, has another number of tokens, or no [CLS] or [SEP].
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast  # slow to import, so late

    if not (folder / "tokenizer.json").is_file():
        raise UsageError(f"{folder / 'tokenizer.json'} is missing; {advice}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        found = len(tokenizer)
    except Exception as error:  # transformers and tokenizers each raise their own types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UsageError(f"{folder} can't be read ({reason}); {advice}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UsageError(f"{folder} holds no fast tokenizer; {advice}")
    if found != vocab_size:
        raise UsageError(f"{folder} has {found} tokens, not {vocab_size}; {advice}")
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        raise UsageError(f"{folder} has no [CLS] or no [SEP] token; {advice}")
    return tokenizer
