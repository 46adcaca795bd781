"""Reading an encoder's tensors from a file of unknown origin: whatever it holds, the answer is tensors or one line."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from prior_fast.config import ImageEncoderConfig
from prior_fast.errors import UsageError
from prior_fast.model.image_encoder import ResNet
from prior_fast.model.weights import load_tensors, misfit

ADVICE = "give another --checkpoint"


def read_encoder_file(path: Path) -> dict[str, Tensor]:
    """The named tensors of a .safetensors, .pt or .pth file.

    Raises:
        UsageError: it can't be read, is damaged, or its tensors are larger than the file.
    """
    try:
        if path.suffix != ".safetensors" and zipfile.is_zipfile(path):
            _check_archive(path)
        tensors = load_tensors(path, "--checkpoint")
        problem = _odd(tensors, path.stat().st_size)
    except UsageError:
        raise
    except Exception as error:  # unpickling a damaged file can end in an error of any type
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(f"--checkpoint {path} can't be read as a file of tensors ({reason}); {ADVICE}") from None
    if problem:
        raise UsageError(f"--checkpoint {path}: {problem}; {ADVICE}")
    return tensors


def check_sizes(path: Path, image: ImageEncoderConfig, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not those of the ResNet `image`, before memory is taken for it.

    Raises:
        UsageError: a tensor is missing, unknown or of another shape.
    """
    # Every block has several tensors, but a number in a name can claim any number of blocks.
    if sum(image.depths) > max(len(tensors), sum(ImageEncoderConfig().depths)):
        raise UsageError(f"--checkpoint {path}: it names {sum(image.depths)} blocks, but lacks most of them; {ADVICE}")
    with torch.device("meta"):
        wanted = ResNet(image.depths, image.width, image.shrink).state_dict()
    found = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    stem = found.get("conv1.weight")
    if stem is not None and stem.ndim == 4 and stem.shape[1] == 3:
        found["conv1.weight"] = stem[:, :1]
    problem = misfit(wanted, found)
    if problem:
        raise UsageError(f"--checkpoint {path} does not fit the encoder: it {problem}")
    for name, tensor in wanted.items():
        if tensor.is_floating_point() != found[name].is_floating_point():
            raise UsageError(f"--checkpoint {path}: {name} holds {found[name].dtype}, not {tensor.dtype}; {ADVICE}")


def _check_archive(path: Path) -> None:
    """Compare the parts of a .pt file with their checksums, which torch.load does not do.

    Raises:
        UsageError: a part is damaged, or compressed, which torch.save does not do.
    """
    with zipfile.ZipFile(path) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise UsageError(f"--checkpoint {path} is compressed, unlike files of torch.save; {ADVICE}")
        damaged = archive.testzip()
    if damaged is not None:
        raise UsageError(f"--checkpoint {path} is damaged: the checksum of {damaged} does not fit; {ADVICE}")


def _odd(tensors: Mapping[str, Tensor], size: int) -> str | None:
    """Why these can't be the plain tensors of a file of `size` bytes; None if they can."""
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
            return f"{name} is no plain tensor"
        if name == "conv1.weight" and tensor.ndim != 4:
            return f"{name} has {tensor.ndim} dimensions, not 4"
        # An expanded tensor claims more elements than the file has.
        if tensor.numel() * tensor.element_size() > size:
            return f"{name} is larger than the file"
    return None
