"""From a DICOM file's stored values to gray levels: modality transform, VOI transform, inversion (PS3.3, C.11)."""

import math
from collections.abc import Iterable

import numpy as np
from pydicom import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from prior_fast.radiology.gray_levels import declared_range, in_blocks, scaled
from prior_fast.radiology.image_file import UnreadableImage

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
# Beyond every window: what a window maps there is the lowest and the highest value that it gives.
_FAR = np.array([-1e30, 1e30])
# A level for each stored value costs less than one for each pixel, up to this many bits.
_TABLE_BITS = 16
_BLOCK = 1 << 20


def presented(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """The gray levels that a viewer would show, bright where the film is bright.

    The values go through the modality LUT or the rescale slope, then through the VOI LUT or, without one, the first
    window. The range that the VOI transform can give is mapped to 0..255. Without a VOI transform, this is the range of
    the stored bits or of the modality LUT, as `gray_levels.declared_range` says. MONOCHROME1 and a PresentationLUTShape
    of INVERSE invert the result, once.

    A window that is too narrow to hold two values counts as none. An unknown VOILUTFunction counts as LINEAR.

    Args:
        stored: [H, W] integers, without unused bits.

    Returns:
        uint8 [H, W].

    Raises:
        UnreadableImage: a look-up table is cut off, or the rescale slope is not usable.
    """
    bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation) == 1
    lowest = -(2 ** (bits - 1)) if signed else 0

    def index(values: np.ndarray) -> np.ndarray:
        return values.astype(np.int64).clip(lowest, lowest + 2**bits - 1) - lowest

    if bits > _TABLE_BITS:
        levels = _levels(index(stored) + lowest, dataset, bits, signed)
    else:
        seen, table = np.zeros(2**bits, bool), np.zeros(2**bits, np.uint8)
        for rows in np.array_split(stored.reshape(-1), 1 + stored.size // _BLOCK):
            seen[index(rows)] = True
        present = np.flatnonzero(seen)
        table[present] = _levels(present + lowest, dataset, bits, signed)
        levels = in_blocks(lambda block: table[index(block)], stored)
    inverse = str(dataset.get("PresentationLUTShape") or "").strip().upper() == "INVERSE"
    return 255 - levels if inverse or dataset.PhotometricInterpretation == "MONOCHROME1" else levels


def _levels(values: np.ndarray, dataset: Dataset, bits: int, signed: bool) -> np.ndarray:
    """The gray levels of stored values before the inversion, uint8."""
    facts = _copy(dataset, ("BitsStored", "PixelRepresentation", "PhotometricInterpretation"))
    modality_bits = _add_modality(facts, dataset)
    meant = apply_modality_lut(values, facts)
    if modality_bits:
        meant = meant.astype(np.int64)
    if dataset.get("VOILUTSequence") and _has_table(dataset.VOILUTSequence[0]):
        table, depth = _table(dataset.VOILUTSequence[0], dataset, "VOI")
        facts.VOILUTSequence = [table]
        entries, first, _ = table.LUTDescriptor
        inside = meant.clip(first, first + (entries or 2**16) - 1)
        return scaled(apply_voi_lut(inside, facts).astype(np.int64), 0, 2**depth - 1)
    if _add_window(facts, dataset):
        low, high = apply_voi_lut(_FAR, facts)
        shares = (apply_voi_lut(meant, facts) - low) / (high - low)
        return scaled(shares, 0, 1)
    if modality_bits:
        return scaled(meant, *declared_range(int(meant.min()), int(meant.max()), modality_bits))
    levels = scaled(values, *declared_range(int(values.min()), int(values.max()), bits, signed))
    return 255 - levels if float(facts.get("RescaleSlope", 1)) < 0 else levels


def _add_modality(facts: Dataset, dataset: Dataset) -> int:
    """Add the modality transform to `facts`. The bits of its LUT's entries; 0 without a LUT."""
    if dataset.get("ModalityLUTSequence"):
        table, depth = _table(dataset.ModalityLUTSequence[0], dataset, "modality")
        facts.ModalityLUTSequence = [table]
        return depth
    given = {name: _first(dataset.get(name)) for name in ("RescaleSlope", "RescaleIntercept")}
    if any(value is not None for value in given.values()):
        slope, intercept = given["RescaleSlope"], given["RescaleIntercept"]
        facts.RescaleSlope, facts.RescaleIntercept = 1, 0
        facts.update(_copy(dataset, (name for name, value in given.items() if value is not None)))
        if slope == 0 or not all(map(math.isfinite, (slope or 0, intercept or 0))):
            raise UnreadableImage(f"RescaleSlope {slope} and RescaleIntercept {intercept} give no gray levels")
    return 0


def _add_window(facts: Dataset, dataset: Dataset) -> bool:
    """Add the window to `facts`, and say whether there is a usable one."""
    center, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "").strip().upper()
    facts.VOILUTFunction = function if function in _FUNCTIONS else "LINEAR"
    if center is None or width is None or not (math.isfinite(center) and math.isfinite(width)):
        return False
    facts.update(_copy(dataset, ("WindowCenter", "WindowWidth")))
    # PS3.3 C.11.2.1.2: a LINEAR window of width 1 is a threshold, and others need more than 0.
    return width > (1 if facts.VOILUTFunction == "LINEAR" else 0)


def _has_table(item: Dataset) -> bool:
    return item.get("LUTDescriptor") is not None and item.get("LUTData") is not None


def _table(item: Dataset, dataset: Dataset, name: str) -> tuple[Dataset, int]:
    """A look-up table whose data are a list of 16-bit numbers, and the bits of an entry that the file declares.

    pydicom reads entries of some numbers of bits only, and only those in 16-bit words.

    Raises:
        UnreadableImage: entries are missing.
    """
    if not _has_table(item):
        raise UnreadableImage(f"a {name} LUT without LUTDescriptor or LUTData")
    entries, first, depth = (int(number) for number in item.LUTDescriptor)
    data = item.LUTData
    if isinstance(data, bytes):
        _, little = dataset.original_encoding
        words = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if little else ">u2").astype("<u2")
        # Entries of 8 bits may be packed by two.
        numbers = words if depth > 8 or len(words) >= (entries or 2**16) else words.view(np.uint8)
    else:
        numbers = np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
    wanted = entries or 2**16
    if len(numbers) < wanted or not 1 <= depth <= 16:
        raise UnreadableImage(f"a {name} LUT of {depth} bits has {len(numbers)} entries, wanted {wanted}")
    table = Dataset()
    table.add_new("LUTDescriptor", "SS" if first < 0 else "US", [entries, first, 16])
    table.add_new("LUTData", "US", numbers[:wanted].tolist())
    return table, depth


def _copy(dataset: Dataset, names: Iterable[str]) -> Dataset:
    copy = Dataset()
    for name in names:
        copy.add(dataset[name])
    return copy


def _first(value: object) -> float | None:
    """The first number of an element with one or several values; None without a value."""
    if value is None or value == "":
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except TypeError:
        values = list(value)  # type: ignore[call-overload]
        return float(values[0]) if values else None
