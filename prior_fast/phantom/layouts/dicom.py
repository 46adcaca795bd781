"""Writing DICOM files like those of RSNA and SIIM-ACR: 8-bit gray with JPEG baseline compression."""

import io
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGBaseline8Bit, SecondaryCaptureImageStorage

_JPEG_QUALITY = 92


def make_uuid(rng: np.random.Generator) -> uuid.UUID:
    """A random UUID (version 4) from the given random numbers."""
    return uuid.UUID(bytes=rng.bytes(16), version=4)


def make_uid(rng: np.random.Generator) -> str:
    """A DICOM UID made of a UUID (DICOM PS3.5, B.2)."""
    return f"2.25.{make_uuid(rng).int}"


def write_dicom(path: Path, pixels: np.ndarray, uids: tuple[str, str, str], facts: dict[str, Any]) -> None:
    """Write pixels [H, W] uint8 as a DICOM file. The same arguments give the same bytes.

    Args:
        uids: the UIDs of the study, the series and the image.
        facts: further elements, by keyword.
    """
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = UID(uids[2])
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = uids
    dataset.Modality, dataset.BodyPartExamined = "CR", "CHEST"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.LossyImageCompression, dataset.LossyImageCompressionMethod = "01", "ISO_10918_1"
    for name, value in facts.items():
        setattr(dataset, name, value)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    dataset.PixelData = encapsulate([buffer.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    # Written by Python: pydicom hides the number of the system's error, such as a full disk.
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    path.write_bytes(file.getvalue())
