"""Decoding DICOM X-rays to the model's input size."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from prior_fast.radiology.xray import UnreadableImage, to_square

_LONGEST_REASON = 200


def read_dicom(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode a gray DICOM image to 8 bits and resize it, ignoring its aspect ratio, as `xray.read_xray` does.

    Unsigned 8-bit pixels are used unchanged. Other pixels go through the rescale slope and the first window (DICOM
    PS3.3, C.11.2.1.2). Without a window, the range of BitsStored is mapped to 0..255. MONOCHROME1 is inverted.

    Returns:
        uint8 [224, 224] and the (width, height) of the file's image in pixels.

    Raises:
        UnreadableImage: the file is absent, empty, truncated, not DICOM, in colour, or has several frames.
    """
    try:
        with warnings.catch_warnings():
            # pydicom warns of unusual metadata. Only failures to decode matter here, and they are raised.
            warnings.simplefilter("ignore")
            if path.stat().st_size == 0:
                raise UnreadableImage("the file is empty")
            dataset = dcmread(path)
            _check(dataset)
            gray = _to_8_bits(dataset.pixel_array, dataset)
    except (UnreadableImage, MemoryError):
        raise
    except FileNotFoundError as error:
        raise UnreadableImage("there is no such file") from error
    except InvalidDicomError as error:
        raise UnreadableImage("no DICOM file") from error
    except Exception as error:  # pydicom and the decoders behind it raise many types on broken data
        reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
        raise UnreadableImage(f"can't be decoded: {reason}") from error
    return to_square(Image.fromarray(gray)), (gray.shape[1], gray.shape[0])


def _check(dataset: Dataset) -> None:
    if "PixelData" not in dataset:
        raise UnreadableImage("no pixel data, or cut off in them")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise UnreadableImage(f"{frames} frames")
    kind = str(dataset.get("PhotometricInterpretation", "absent"))
    if kind not in ("MONOCHROME1", "MONOCHROME2") or dataset.get("SamplesPerPixel", 1) != 1:
        raise UnreadableImage(f"no gray image (PhotometricInterpretation {kind})")


def _to_8_bits(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Stored values [H, W] as gray levels, uint8 [H, W], bright where the film is bright."""
    bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation) == 1
    if bits == 8 and not signed:
        gray = stored.astype(np.uint8)
    else:
        window = _window(stored, dataset)
        if window is None:
            lowest = -(2 ** (bits - 1)) if signed else 0
            window = (stored.astype(np.float64) - lowest) / (2**bits - 1)
        gray = np.rint(window.clip(0, 1) * 255).astype(np.uint8)
    return 255 - gray if dataset.PhotometricInterpretation == "MONOCHROME1" else gray


def _window(stored: np.ndarray, dataset: Dataset) -> np.ndarray | None:
    """The values mapped by the file's first window, 0..1 inside it; None if the file has no usable window."""
    center, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    if center is None or width is None or width <= (1 if function == "LINEAR" else 0):
        return None
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    values = stored * float(1 if slope is None else slope) + float(intercept or 0)
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR_EXACT":
        return (values - center) / width + 0.5
    return (values - (center - 0.5)) / (width - 1) + 0.5


def _first(value: object) -> float | None:
    """The first number of an element with one or several values; None without a value."""
    if value is None or value == "":
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except TypeError:
        values = list(value)  # type: ignore[call-overload]
        return float(values[0]) if values else None
