"""Splitting a section into sentences: letters are kept in their order, and nothing is invented."""

from prior_fast.radiology.sentences import split_sentences
from tests.torture.fuzz.harness.texts import text_of


def target(data: bytes) -> None:
    """Any text gives clean sentences."""
    text = text_of(data)
    sentences = split_sentences(text)
    said = "".join(sentences)
    assert [c for c in said if c.isalpha()] == [c for c in text if c.isalpha()]
    there = iter(text)
    assert all(c in there for c in said if not c.isspace())
    for sentence in sentences:
        assert sentence == " ".join(sentence.split())
        assert any(map(str.isalpha, sentence))
