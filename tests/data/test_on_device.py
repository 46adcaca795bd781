"""Batches on their way to the device."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from prior_fast.batch import PackedBatch
from prior_fast.config import preset
from prior_fast.data.batch_plan import LoaderConfig
from prior_fast.data.loader import TrainingLoader
from prior_fast.data.on_device import on_device, tensors_of
from prior_fast.data.prepared_dataset import PreparedDataset


@pytest.fixture
def batches(small_store: Path) -> list[PackedBatch]:
    config = LoaderConfig(preset("tiny").data, 4, seed=0)
    return list(TrainingLoader(PreparedDataset.open(small_store, "train"), config).epoch(0))


def test_on_a_cpu_batches_pass(batches: list[PackedBatch]) -> None:
    found = list(on_device(iter(batches), torch.device("cpu")))
    assert len(found) == len(batches) > 1
    for own, other in zip(found, batches, strict=True):
        assert all(map(torch.equal, tensors_of(own), tensors_of(other)))
    assert len(tensors_of(batches[0])) >= 8


class Stream:
    """Stands for a stream; `current` is the one that work goes to."""

    current: "Stream"

    def __init__(self, events: list[tuple[str, ...]], name: str) -> None:
        self.events, self.name = events, name

    def wait_stream(self, other: "Stream") -> None:
        self.events.append((self.name, "waits for", other.name))

    def __enter__(self) -> None:
        self.before, Stream.current = Stream.current, self

    def __exit__(self, *_: Any) -> None:
        Stream.current = self.before


def test_on_a_gpu_they_are_made_on_a_stream_of_their_own(
    batches: list[PackedBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step waits for its batch on the device, and the making of a batch for no step."""
    events: list[tuple[str, ...]] = []
    Stream.current = computing = Stream(events, "computing")
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(events, "making"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream.current)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    recorded: list[torch.Tensor] = []
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda x, stream: recorded.append(x) or events.append(("kept for", stream.name))
    )
    monkeypatch.setattr(
        PackedBatch, "to", lambda batch, device: events.append(("copied on", Stream.current.name)) or batch
    )

    def make() -> Iterator[PackedBatch]:
        for batch in batches[:2]:
            events.append(("made on", Stream.current.name))
            yield batch

    found = []
    for batch in on_device(make(), torch.device("cuda")):
        assert Stream.current is computing
        events.append(("step",))
        found.append(batch)
    assert found == batches[:2] and Stream.current is computing
    kept = [("kept for", "computing")] * len(tensors_of(batches[0]))
    one = [("made on", "making"), ("copied on", "making"), ("computing", "waits for", "making"), *kept, ("step",)]
    assert events == [("making", "waits for", "computing"), *one, *one]
    assert {x.data_ptr() for x in recorded} == {x.data_ptr() for batch in found for x in tensors_of(batch)}
