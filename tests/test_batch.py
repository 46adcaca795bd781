"""Packing of reports."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prior_fast.batch import PackedBatch, pack_reports
from prior_fast.data.loader import cut_report

REPORTS = st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=5), min_size=1, max_size=5)


def make(lengths: list[list[int]]) -> tuple[list[list[np.ndarray]], PackedBatch]:
    numbers = iter(range(10, 10_000))
    reports = [[np.array([next(numbers) for _ in range(n)]) for n in sentences] for sentences in lengths]
    count = len(reports)
    batch = pack_reports(reports, cls_id=2, sep_id=3).with_images(
        torch.zeros(count, 1, 2, 2), study_ids=torch.arange(count), image_rows=torch.arange(count)
    )
    return reports, batch


@settings(deadline=None)
@given(REPORTS)
def test_offsets_find_every_token_and_sentence(lengths: list[list[int]]) -> None:
    reports, batch = make(lengths)
    inner = batch.token_ids[batch.sentence_token_rows()]
    assert inner.tolist() == [int(token) for report in reports for sentence in report for token in sentence]
    sentences = torch.tensor_split(inner, batch.cu_sentence_tokens[1:-1].long())
    assert [s.tolist() for s in sentences] == [s.tolist() for report in reports for s in report]
    for index, report in enumerate(reports):
        a, b = batch.cu_tokens[index], batch.cu_tokens[index + 1]
        tokens = batch.token_ids[a:b].tolist()
        assert tokens == [2, *(int(t) for s in report for t in s), 3]
        assert batch.position_ids[a:b].tolist() == list(range(len(tokens)))
        assert batch.cu_sentences[index + 1] - batch.cu_sentences[index] == len(report)
    assert batch.max_tokens == max(sum(s) + 2 for s in lengths)
    assert batch.max_sentences == max(map(len, lengths))
    assert batch.max_sentence_tokens == max(max(s) for s in lengths)
    assert (len(batch), batch.num_sentences) == (len(lengths), sum(map(len, lengths)))


def test_empty_reports_and_sentences_are_refused() -> None:
    with pytest.raises(ValueError, match=r"reports\[1\]"):
        pack_reports([[np.array([5])], []], 2, 3)
    with pytest.raises(ValueError, match=r"reports\[0\]"):
        pack_reports([[np.array([5]), np.array([], dtype=int)]], 2, 3)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.integers(8, 60), st.integers(0, 5))
def test_reports_are_cut_between_sentences(lengths: list[int], max_tokens: int, max_sentences: int) -> None:
    sentences = [np.full(n, i) for i, n in enumerate(lengths)]
    kept = cut_report(sentences, max_tokens, max_sentences)
    total = sum(map(len, kept)) + 2
    assert 1 <= len(kept) <= (max_sentences or len(sentences))
    assert total <= max_tokens
    if lengths[0] + 2 <= max_tokens:
        assert all(np.array_equal(a, b) for a, b in zip(kept, sentences))
        full = len(kept) == len(sentences) or len(kept) == max_sentences
        assert full or total + lengths[len(kept)] > max_tokens
    else:
        assert [len(s) for s in kept] == [max_tokens - 2]
