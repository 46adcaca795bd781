"""The encoder as a part of other networks: its feature maps, its parameter names, and what stays frozen."""

import dataclasses
import json
from pathlib import Path

import pytest
import safetensors.torch
import segmentation_models_pytorch as smp
import torch
from rich.progress import Progress
from torch import nn
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter

from prior_fast.cli.main import main
from prior_fast.config import ImageEncoderConfig, preset
from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.downstream.backbone import FeatureResNet
from prior_fast.downstream.config import task_config
from prior_fast.downstream.finetune import FineTuning, Place
from prior_fast.downstream.pretrained import open_pretrained
from prior_fast.downstream.settings.classification import ClassificationConfig
from prior_fast.downstream.splits import make_task
from prior_fast.downstream.tasks.segmentation import UNet
from prior_fast.errors import UsageError
from prior_fast.model.image_encoder import ImageEncoder
from prior_fast.training.checkpoint import open_checkpoint
from tests.downstream.fake_dataset import write_squares


@pytest.mark.parametrize("image", [preset("tiny").model.image, ImageEncoderConfig(depths=(1, 1), width=8, shrink=4)])
def test_maps_are_at_every_stride(image: ImageEncoderConfig) -> None:
    encoder = ImageEncoder(dataclasses.replace(image, pool_heads=1), "patches").eval()
    features = FeatureResNet.from_encoder(encoder, image.depths, image.width, image.shrink).eval()
    images = torch.randn(2, 1, 224, 224)
    maps = features(images)
    assert [(x.shape[1], 224 // x.shape[2], x.shape[2] == x.shape[3]) for x in maps] == [
        (channels, stride, True) for channels, stride in zip(features.feature_channels, features.strides)
    ]
    assert torch.equal(maps[0], images) and torch.equal(maps[-1], encoder.encoder(images))
    assert torch.allclose(maps[1], nn.functional.avg_pool2d(images, 2))


@pytest.fixture(scope="module")
def resnet_50() -> FeatureResNet:
    torch.manual_seed(0)
    return FeatureResNet((3, 4, 6, 3), 64).eval()


def test_a_resnet_50_gives_torchvisions_maps(resnet_50: FeatureResNet) -> None:
    theirs = resnet50(weights=None).eval()
    theirs.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    missing, unexpected = theirs.load_state_dict(resnet_50.state_dict(), strict=False)
    assert set(missing) == {"fc.weight", "fc.bias"} and not unexpected
    layers = {name: name for name in ("relu", "layer1", "layer2", "layer3", "layer4")}
    images = torch.randn(1, 1, 224, 224)
    with torch.inference_mode():
        ours, expected = resnet_50(images), IntermediateLayerGetter(theirs, layers)(images)
    for mine, other in zip(ours[1:], expected.values(), strict=True):
        assert torch.equal(mine, other)


def test_a_resnet_50_u_net_loads_into_the_librarys(resnet_50: FeatureResNet) -> None:
    ours = UNet(resnet_50, (256, 128, 64, 32, 16)).eval()
    theirs = smp.Unet("resnet50", encoder_weights=None, in_channels=1, classes=1).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(ours(images), theirs(images))


def test_the_checkpoints_encoder_and_fresh_weights(checkpoint: Path) -> None:
    opened = open_pretrained(checkpoint)
    whole = open_checkpoint(checkpoint).load_model().image_encoder.state_dict()
    alone = opened.load("checkpoint", 0).state_dict()
    assert whole.keys() == alone.keys() and all(torch.equal(whole[name], alone[name]) for name in whole)
    fresh, again = (opened.load("random", 3).state_dict() for _ in range(2))
    assert not torch.equal(fresh["encoder.conv1.weight"], whole["encoder.conv1.weight"])
    assert all(torch.equal(fresh[name], again[name]) for name in fresh)
    with pytest.raises(UsageError, match="can't be read"):
        dataclasses.replace(opened, path=checkpoint / "nowhere").load("checkpoint", 0)


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like those of ImageNet: three colours, and a classifier."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("file") / "resnet50.pt"
    torch.save(resnet50().state_dict(), path)
    return path


def test_a_file_with_a_resnet_50(resnet_file: Path) -> None:
    opened = open_pretrained(resnet_file)
    there, loaded = torch.load(resnet_file, weights_only=True), opened.load("checkpoint", 0).encoder.state_dict()
    assert torch.equal(loaded["conv1.weight"], there["conv1.weight"].sum(dim=1, keepdim=True))
    same = [name for name in loaded if name != "conv1.weight"]
    assert len(same) > 300 and all(torch.equal(loaded[name], there[name]) for name in same)
    # Mean and deviation of MIMIC-CXR's images, from the supplement.
    assert (opened.image_mean, opened.image_std) == (0.4755, 0.3011)


def test_a_file_serves_the_command_and_has_no_attention_pool(
    resnet_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = write_squares(tmp_path / "few", [True, False] * 4, {"prior-0": (range(4), range(4, 6), range(6, 8))})
    words = ["evaluate", "classification", "--checkpoint", str(resnet_file), "--data", str(few)]
    settings = ["splits=prior-0", "max_steps=1", "batch_size=2", "blocks=0", "device=cpu"]
    assert main([*words, "--out", str(tmp_path / "file"), *settings]) == 0
    assert json.loads((tmp_path / "file/metrics.json").read_text())["checkpoint"]["path"] == str(resnet_file)
    assert main([*words, "--out", str(tmp_path / "pool"), *settings, "pool=attention"]) == 2
    assert "has no attention pool; use pool=average" in capsys.readouterr().err
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, other)
    assert main([*words[:3], str(other), *words[4:], "--out", str(tmp_path / "other"), *settings]) == 2
    assert f"--checkpoint {other} does not fit the encoder" in capsys.readouterr().err


CASES = [
    ("classification", ["blocks=0"], ("encoder.",)),
    ("classification", ["blocks=0", "pool=attention"], ("encoder.", "pool.")),
    ("classification", ["blocks=1"], ("encoder.conv1", "encoder.bn1", "encoder.layer1", "encoder.layer2")),
    ("classification", ["blocks=3"], ()),
    ("classification", ["blocks=4", "pool=attention"], ()),
    ("segmentation", ["frozen=true"], ("encoder.",)),
    ("detection", ["frozen=true", "proposals=16"], ("backbone.body.",)),
]


@pytest.mark.parametrize("name, words, frozen", CASES)
def test_frozen_parts_stay_and_all_others_change(
    name: str, words: list[str], frozen: tuple[str, ...], checkpoint: Path, squares: Path, tmp_path: Path
) -> None:
    small = {"segmentation": ["decoder_channels=16,8,8,8,8"], "detection": ["pyramid_channels=16", "head_width=16"]}
    # Two epochs, with validation in evaluation mode between them.
    common = ["batch_size=12", "max_steps=3", "learning_rate=0.01"]
    config = task_config(name, [*common, *small.get(name, []), *words])
    dataset = LabelledDataset.open(squares)
    rows = {"mixed": dataset.split("mixed", 100)}
    task = make_task(name, open_pretrained(checkpoint), dataset, config, torch.device("cpu"), rows)
    with Progress("losses", disable=True) as bar:
        place = Place("mixed", tmp_path, torch.device("cpu"), bar, lambda: False)
        run = FineTuning(task, config, rows["mixed"], place)
        before = {key: tensor.clone() for key, tensor in run.model.state_dict().items()}
        assert run.train()
    changed = {key for key, tensor in run.model.state_dict().items() if not torch.equal(tensor, before[key])}
    kept = before.keys() - changed
    assert {key for key in before if frozen and key.startswith(frozen)} <= kept
    # A shift of all keys does not change a softmax.
    free = {key for key in kept if not (frozen and key.startswith(frozen)) and "k_proj.bias" not in key}
    assert not free, sorted(free)


def test_more_blocks_than_stages(checkpoint: Path, squares: Path) -> None:
    dataset, opened = LabelledDataset.open(squares), open_pretrained(checkpoint)
    two = dataclasses.replace(opened, image=ImageEncoderConfig(depths=(1, 1), width=16, shrink=4))
    with pytest.raises(UsageError, match="blocks=3: the encoder has 2 stages"):
        make_task("classification", two, dataset, ClassificationConfig(blocks=3), torch.device("cpu"), {})
