"""Maps the keys of the authors' weight files to the keys of the model.

The file of their image encoder (`prior_resnet50.pt`) has torchvision's names; a whole checkpoint has a prefix for each
part. Every key is classified as used, dropped for a known reason, or unknown.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_RESNET = "image_encoder.encoder."
_RESNET_KEY = re.compile(r"(conv1|bn1|layer[1-4]\.\d+)\.")
_DECODER_KEY = re.compile(r"sentence_decoder\.(?:\w+\.)*?((?:encoder\.layer|embeddings)\..+)")

# Keys that are not used: the first matching pattern gives the reason.
_DROPPED = (
    (re.compile(r"(.*\.)?position_ids"), "a counter that newer versions of transformers do not store"),
    (re.compile(r"text_encoder\..*pooler\..*"), "BERT's pooler, whose output nothing uses"),
    (re.compile(r"sentence_decoder\..*pooler\..*"), "BERT's pooler, whose output nothing uses"),
    (re.compile(r"sentence_decoder\..*word_embeddings\..*"), "a table of words: the decoder takes queries instead"),
    (re.compile(r"global_text_projection\..*"), "a projection that the released code builds and never uses"),
    (re.compile(r"(image_encoder\.encoder\.)?fc\..*"), "a classifier"),
)


@dataclass
class Renamed:
    """The classified keys of a file.

    Attributes:
        used: from a key of the model to the file's key.
        dropped: from a key of the file to the reason.
        unknown: keys of the file that the model does not have and no pattern drops.
        image_only: the file is an image encoder alone.
    """

    used: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    image_only: bool = False


def rename(keys: Iterable[str], known: Iterable[str] | None = None) -> Renamed:
    """Classify the keys of a file. `load_tensors` has already removed the prefixes that all keys share.

    known: the model's keys; None accepts every key that no pattern drops.
    """
    keys = list(keys)
    result = Renamed(image_only=bool(keys) and all(map(_is_resnet, keys)))
    wanted = None if known is None else set(known)
    for key in keys:
        reason = next((reason for pattern, reason in _DROPPED if pattern.fullmatch(key)), None)
        name = _RESNET + key if result.image_only else _here(key)
        if reason is not None and (wanted is None or name not in wanted):
            result.dropped[key] = reason
        elif wanted is None or name in wanted:
            result.used[name] = key
        else:
            result.unknown.append(key)
    return result


def _is_resnet(key: str) -> bool:
    return bool(_RESNET_KEY.match(key)) or key.startswith("fc.")


def _here(key: str) -> str:
    if key == "prototype_queries":
        return "sentence_decoder.queries"
    key = key.replace("item_gather.attention_pool.", "item_gather.")
    decoder = _DECODER_KEY.fullmatch(key)
    return f"sentence_decoder.decoder.{decoder.group(1)}" if decoder else key
