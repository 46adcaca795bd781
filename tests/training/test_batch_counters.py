"""Batch normalizations whose batches are counted together."""

import pytest
import torch
from torch import nn

from prior_fast.config import preset
from prior_fast.model.prior import PRIORModel
from prior_fast.training.batch_counters import uncounted


def test_layers_normalize_and_track_but_do_not_count() -> None:
    layers = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3, momentum=None), nn.BatchNorm2d(3))
    layers.append(nn.BatchNorm2d(3, track_running_stats=False))
    twin = nn.Sequential(*layers)
    before = {name: x.clone() for name, x in layers.state_dict().items()}
    x = torch.randn(2, 3, 4, 4)
    with uncounted(layers) as counters:
        found = layers(x)
        assert [int(counter) for counter in counters] == [0, 0]
    assert counters[0] is layers[0].num_batches_tracked and counters[1] is layers[3].num_batches_tracked
    assert layers.state_dict().keys() == before.keys()
    assert int(layers[2].num_batches_tracked) == 1  # it computes with the number
    assert not torch.equal(layers[0].running_mean, before["0.running_mean"])
    assert torch.equal(found, twin(x)) and int(layers[0].num_batches_tracked) == 1


def test_an_error_restores_the_counters() -> None:
    layer = nn.BatchNorm1d(3)
    with pytest.raises(KeyError), uncounted(layer):
        raise KeyError
    assert int(layer.num_batches_tracked) == 0


@pytest.mark.parametrize("name", ["image_encoder", "image_decoder"])
def test_each_layer_of_a_recorded_part_runs_once_in_a_step(name: str) -> None:
    """So that 1 is what a replay adds to each counter."""
    model = PRIORModel(preset("tiny").model, vocab_size=20).train()
    part = model.get_submodule(name)
    width = model.config.embed_dim
    inputs = [torch.randn(2, 1, 224, 224)] if name == "image_encoder" else [torch.randn(2, width, 7, 7)] * 2
    with torch.no_grad():
        part(*inputs)
    with uncounted(part) as counters:
        assert len(counters) > 5 and all(int(counter) == 1 for counter in counters)
