"""Starting weights: torchvision's names and values, and files that are refused."""

import dataclasses
import pickle
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision

from prior_fast.config import ImageEncoderConfig, preset
from prior_fast.errors import UsageError
from prior_fast.model.build import build_model, structure_of
from prior_fast.model.image_encoder import ResNet, load_resnet_weights
from prior_fast.model.prior import PRIORModel
from prior_fast.model.weights import nonfinite


@pytest.fixture(scope="module")
def theirs() -> torchvision.models.ResNet:
    torch.manual_seed(3)
    model = torchvision.models.resnet50(weights=None)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@torch.no_grad()
def test_a_gray_image_gets_torchvisions_features(
    theirs: torchvision.models.ResNet, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"resnet{suffix}"
    save = torch.save if suffix == ".pt" else safetensors.torch.save_file
    save(theirs.state_dict(), path)  # type: ignore[operator]
    ours = ResNet((3, 4, 6, 3), 64).eval()
    assert str(path) in load_resnet_weights(ours, str(path))
    gray = torch.randn(2, 1, 224, 224)
    x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(gray.expand(-1, 3, -1, -1)))))
    expected = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(x))))
    assert (ours(gray) - expected).abs().max() < 1e-3 * expected.abs().max()


@pytest.mark.parametrize("envelopes", [("state_dict",), ("model",), ("state_dict", "model")])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model."])
def test_weights_in_a_training_checkpoint_are_unwrapped(
    envelopes: tuple[str, ...], prefix: str, theirs: torchvision.models.ResNet, tmp_path: Path
) -> None:
    state = {f"{prefix}{name}": tensor for name, tensor in theirs.state_dict().items() if name != "fc.weight"}
    for name in envelopes:
        state = {name: state, "epoch": 3}  # type: ignore[dict-item]
    torch.save(state, tmp_path / "run.ckpt")
    ours = ResNet((3, 4, 6, 3), 64)
    load_resnet_weights(ours, str(tmp_path / "run.ckpt"))
    assert torch.equal(ours.layer4[0].conv1.weight, theirs.layer4[0].conv1.weight)


@pytest.mark.parametrize(("name", "version"), [("imagenet", "IMAGENET1K_V1"), ("imagenet-v2", "IMAGENET1K_V2")])
def test_imagenet_means_the_weights_of_the_authors_torchvision(
    name: str, version: str, theirs: torchvision.models.ResNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision finds downloaded files in TORCH_HOME: both versions are there, with different values."""
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for number, weights in enumerate(torchvision.models.ResNet50_Weights):
        state = theirs.state_dict() | {"bn1.bias": torch.full((64,), float(number))}
        torch.save(state, tmp_path / "hub" / "checkpoints" / Path(weights.url).name)
    ours = ResNet((3, 4, 6, 3), 64)
    assert name in load_resnet_weights(ours, name)
    number = [weights.name for weights in torchvision.models.ResNet50_Weights].index(version)
    assert ours.bn1.bias.unique().tolist() == [number]
    stem = theirs.conv1.weight.sum(dim=1, keepdim=True)
    torch.testing.assert_close(ours.conv1.weight, stem)


def test_imagenet_is_refused_at_once_where_no_server_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What torch.hub prints about a download is not shown either."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        refusing = f"http://127.0.0.1:{bound.getsockname()[1]}"
    # Every https address is asked for through a proxy that refuses connections.
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, refusing)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match=r"imagenet could not be downloaded .*refused.*TORCH_HOME.*weights=random"):
        load_resnet_weights(ResNet((3, 4, 6, 3), 64), "imagenet")
    assert capfd.readouterr().out == ""


def test_a_damaged_download_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = Path(torchvision.models.ResNet50_Weights.IMAGENET1K_V1.url).name
    (tmp_path / "hub" / "checkpoints" / name).write_bytes(b"cut off")
    with pytest.raises(UsageError, match=rf"imagenet can't be read \(.+\): remove {tmp_path}/.*{name} to download"):
        load_resnet_weights(ResNet((3, 4, 6, 3), 64), "imagenet")


def with_nan(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    state["layer2.1.bn1.weight"] = torch.full_like(state["layer2.1.bn1.weight"], float("inf"))
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: {name.replace("layer3.2.", "layer3.9."): x for name, x in state.items()},
            r"it lacks 18 of the model's 318 tensors: layer3\.2\.\S+, layer3\.2\.\S+ and 16 more, "
            r"and has 18 that it does not know: layer3\.9\.\S+, layer3\.9\.\S+ and 16 more",
        ),
        (
            lambda state: {**state, "layer3.9.conv1.weight": torch.zeros(2)},
            r"it has 1 tensors that the model does not know: layer3\.9\.conv1\.weight",
        ),
        (
            lambda state: {**state, "bn1.weight": torch.zeros(65)},
            r"it has another shape in 1 tensors: bn1\.weight has shape \[65\], the model's has \[64\]",
        ),
        (with_nan, r"it has values that are not finite in 1 tensors: layer2\.1\.bn1\.weight"),
        (
            lambda state: {f"backbone.{name}": x for name, x in state.items()},
            r"it lacks 318 of the model's 318 tensors",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_a_line(
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    message: str,
    theirs: torchvision.models.ResNet,
    tmp_path: Path,
) -> None:
    torch.save(change(dict(theirs.state_dict())), tmp_path / "other.pt")
    ours = ResNet((3, 4, 6, 3), 64)
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(UsageError, match=f"other\\.pt does not fit the encoder: {message}") as error:
        load_resnet_weights(ours, str(tmp_path / "other.pt"))
    assert len(str(error.value)) < 400 + len(str(tmp_path))
    assert all(torch.equal(before[name], tensor) for name, tensor in ours.state_dict().items())


def test_large_finite_values_are_let_through() -> None:
    """Their sum is infinite, but no value is."""
    assert nonfinite({"large": torch.full((4,), 3e38), "odd": torch.tensor([1.0, float("nan")])}) == ["odd"]


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (Path("opened").touch, ())


def test_what_is_no_file_of_tensors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("trap.pt").write_bytes(pickle.dumps(Trap()))
    Path("text.safetensors").write_text("no tensors")
    torch.save([torch.zeros(3)], "list.pt")
    torch.save({"conv1.weight": torch.zeros(64, 1, 7, 7)}, "half.pt")
    for name, message in (
        ("trap.pt", "can't be read as a file of tensors"),
        ("text.safetensors", "can't be read as a file of tensors"),
        ("list.pt", "no state dict"),
        ("absent.pt", "there is no such file"),
        ("half.pt", "does not fit the encoder"),
    ):
        with pytest.raises(UsageError, match=message) as error:
            load_resnet_weights(ResNet((3, 4, 6, 3), 64), name)
        assert name in str(error.value)
    assert not Path("opened").exists()


@pytest.mark.parametrize("name", ["paper", "released", "tiny"])
def test_presets_build_their_structure(name: str) -> None:
    config = preset(name).model
    text = dataclasses.replace(config.text, weights="random")
    config = dataclasses.replace(config, text=text, image=dataclasses.replace(config.image, weights="random"))
    with torch.device("meta"):
        model = PRIORModel(config, vocab_size=1000)
        again = PRIORModel(structure_of(model), vocab_size=1000)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert shapes == {key: value.shape for key, value in again.state_dict().items()}
    layers = {key.split(".")[4] for key in shapes if key.startswith("sentence_decoder.decoder.encoder.layer.")}
    assert len(layers) == {"paper": 6, "released": 8, "tiny": 2}[name]
    assert shapes["sentence_bank.embed.weight"] == ((256, 128) if name == "tiny" else (512, 768))


def test_the_same_seed_gives_the_same_weights() -> None:
    a, notes = build_model(preset("tiny").model, 100, seed=4)
    b, _ = build_model(preset("tiny").model, 100, seed=4)
    c, _ = build_model(preset("tiny").model, 100, seed=5)
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))
    assert not torch.equal(a.sentence_decoder.queries, c.sentence_decoder.queries)
    assert notes == ["image encoder: random weights", "text encoder: random weights"]


@torch.no_grad()
def test_shrinking_averages_squares() -> None:
    config = ImageEncoderConfig(depths=(1, 1, 1), width=8, shrink=2, weights="random")
    small = ResNet(config.depths, config.width, config.shrink).eval()
    images = torch.randn(2, 1, 224, 224)
    squares = images.unflatten(2, (112, 2)).unflatten(4, (112, 2)).mean(dim=(3, 5))
    small.shrink = 1
    expected = small(squares)
    small.shrink = 2
    assert small(images).shape == (2, 128, 7, 7)
    torch.testing.assert_close(small(images), expected, rtol=1e-4, atol=1e-4)


def test_the_bank_starts_as_configured() -> None:
    from prior_fast.model.prototypes import SentencePrototypeBank

    torch.manual_seed(0)
    unit = SentencePrototypeBank(64, 256, "gaussian_l1").embed.weight
    torch.testing.assert_close(unit.abs().sum(dim=1), torch.ones(64))
    gaussian = SentencePrototypeBank(64, 256, "gaussian").embed.weight
    assert gaussian.std().item() == pytest.approx(1.0, abs=0.05)
