"""Marks in DICOM files: Secondary Capture images that no device has made and that show no patient.

Of the Secondary Capture Image IOD (PS3.3 A.8.1) every attribute of types 1 and 2 is there. Conversion Type SYN says
"synthetic image", Image Type that it is derived; modality OT keeps it out of the scanners' series. UIDs follow from
the model and from how the image was drawn: the study is the model, the series its settings, so that the same image has
the same UIDs whoever draws it.
"""

import io
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from lwddpm.errors import DataError
from lwddpm.marks.mark import SYNTHETIC, Mark

_SPACE = uuid.UUID("5f0ce5a8-7d4e-5b57-9f0c-3c7c5d0f4a51")  # of the names that UIDs are made from
_MAX_BYTES = 64 << 20


def encode(image: np.ndarray, mark: Mark) -> bytes:
    """A file of a slice, uint8 [H, W]; the same bytes for the same slice and mark."""
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset

    model = f"{mark.weights_sha256} {mark.prior_sha256} {mark.guide_sha256}"
    settings = f"{model} {mark.sampling.model_dump_json(exclude={'batch_size'})}"
    settings += f" {mark.edit.model_dump_json()}" if mark.edit is not None else ""
    date, time = mark.drawn_at.strftime("%Y%m%d"), mark.drawn_at.strftime("%H%M%S")

    file = Dataset()
    file.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    file.SOPInstanceUID = _uid(f"{settings} {mark.index} {mark.tiles}")
    file.ImageType = ["DERIVED", "SECONDARY"]
    file.PatientName = file.PatientID = file.PatientBirthDate = file.PatientSex = ""
    file.StudyInstanceUID = _uid(model)
    file.SeriesInstanceUID = _uid(settings)
    file.StudyDate = file.SeriesDate = file.ContentDate = date
    file.StudyTime = file.SeriesTime = file.ContentTime = time
    file.TimezoneOffsetFromUTC = "+0000"
    file.ReferringPhysicianName = file.StudyID = file.AccessionNumber = ""
    file.StudyDescription = f"{SYNTHETIC} images of a model"
    file.Modality, file.ConversionType = "OT", "SYN"
    file.SeriesNumber, file.InstanceNumber = 1, mark.index + 1
    file.SeriesDescription = SYNTHETIC
    file.PatientOrientation = file.Laterality = ""
    file.Manufacturer, file.ManufacturerModelName, file.SoftwareVersions = "LW-DDPM", "lwddpm", mark.lwddpm[:64]
    file.DerivationDescription = mark.notice
    file.ImageComments = mark.text()
    file.ContributingEquipmentSequence = [_equipment(mark, date + time)]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.Rows, file.Columns = image.shape
    file.BitsAllocated = file.BitsStored = 8
    file.HighBit, file.PixelRepresentation = 7, 0
    pixels = np.ascontiguousarray(image).tobytes()
    file["PixelData"] = pydicom.DataElement("PixelData", "OB", pixels + b"\0" * (len(pixels) % 2))

    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file.file_meta.ImplementationClassUID = _uid("lwddpm")
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, file, enforce_file_format=True)
    return stream.getvalue()


def _equipment(mark: Mark, at: str) -> Any:
    """What contributed to the image: the model, as PS3.3 C.12.1.1.5 has it."""
    from pydicom.dataset import Dataset

    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "109102", "DCM"
    purpose.CodeMeaning = "Processing Equipment"
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [purpose]
    equipment.Manufacturer = "LW-DDPM"
    equipment.ManufacturerModelName = mark.model_uri[:64]
    equipment.SoftwareVersions = [mark.lwddpm[:64], f"weights {mark.weights_sha256[:32]}"]
    equipment.ContributionDateTime = f"{at}+0000"
    equipment.ContributionDescription = mark.words()
    return equipment


def read(path: Path) -> tuple[np.ndarray | None, str | None]:
    """The slice in a file, uint8 [H, W], and the text of its mark; no slice where it holds anything else.

    Raises:
        DataError: it is damaged.
    """
    import pydicom

    if path.stat().st_size > _MAX_BYTES:
        raise DataError(f"must have at most {_MAX_BYTES:,} bytes")
    try:
        file = pydicom.dcmread(path)
        comments = str(file.get("ImageComments", ""))
        mark = comments if SYNTHETIC in comments else None
        grey = (file.get("BitsAllocated"), file.get("SamplesPerPixel"), file.get("NumberOfFrames", 1)) == (8, 1, 1)
        compressed = file.file_meta.TransferSyntaxUID.is_compressed
        if mark is None or not grey or compressed or "PixelData" not in file:
            return None, mark
        rows, columns = int(file.Rows), int(file.Columns)
        pixels = np.frombuffer(file.PixelData, np.uint8)[: rows * columns].reshape(rows, columns)
    except Exception as error:  # pydicom raises nearly anything on a damaged file
        raise DataError(f"is no DICOM file, or a damaged one ({type(error).__name__})") from None
    return pixels, mark


def _uid(name: str) -> Any:
    """A UID under 2.25, from a UUID (PS3.5 B.2): the same for the same name."""
    from pydicom.uid import UID

    return UID(f"2.25.{uuid.uuid5(_SPACE, name).int}")
