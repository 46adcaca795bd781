"""The parsers that are fuzzed, their corpora, and random changes of an input."""

import importlib
import random
from collections.abc import Callable
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
# For each parser, the longest input that is tried.
PARSERS = {"sections": 2048, "sentences": 1024, "rle": 256, "tables": 1024, "text_files": 256}


def target_of(parser: str) -> Callable[[bytes], None]:
    """The function that gives an input to the parser, and fails if the parser does what it must not."""
    return importlib.import_module(f"tests.torture.fuzz.harness.{parser}").target


def inputs_of(parser: str) -> list[bytes]:
    """The inputs of the corpus, in the order of their names."""
    return [path.read_bytes() for path in sorted((CORPUS / parser).iterdir())]


def changed(draw: random.Random, inputs: list[bytes]) -> bytes:
    """One of the inputs with up to five changes: bytes removed, repeated, exchanged, or taken from another input."""
    data = bytearray(draw.choice(inputs))
    for _ in range(draw.randint(1, 5)):
        begin = draw.randint(0, len(data))
        end = min(len(data), begin + draw.choice((1, 2, 8, 64)))
        other = draw.choice(inputs)
        start = draw.randint(0, len(other))
        data[begin:end] = draw.choice(
            (b"", data[begin:end] * 2, bytes([draw.randrange(256)]), other[start : start + draw.choice((1, 4, 32))])
        )
    return bytes(data)
