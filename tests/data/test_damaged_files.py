"""Images and NIfTI volumes that are damaged or lie: each is listed with a reason, in little memory; nothing is lost.

With those of `test_damaged_dicom.py` more than 200 kinds. What is done to whole files is in tables.
"""

import gzip
import io
import re
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from lwddpm.config import DataConfig
from lwddpm.data.prepare import open_source, prepare_dataset
from lwddpm.data.sources import SliceLeftOut, UnusableFile

SIDE = 16
RANDOM = np.random.default_rng(0)
VOXELS = RANDOM.integers(100, 4000, (SIDE, SIDE, SIDE)).astype(np.int16)

# Of a NIfTI-1 header: place, format and value of what is changed, and a part of what is said.
Change = tuple[int, str, tuple[Any, ...], str]
HEADER: dict[str, Change] = {
    "no dimensions": (40, "<h", (0,), "dimensions|damaged"),
    "one dimension": (40, "<2h", (1, 16), "dimensions, got 16"),
    "eight dimensions": (40, "<h", (8,), "not a NIfTI|damaged"),
    "negative number of dimensions": (40, "<h", (-3,), "not a NIfTI|damaged"),
    "negative side": (42, "<h", (-16,), "dimensions|damaged"),
    "all sides negative": (42, "<3h", (-16, -16, -16), "dimensions|damaged"),
    "no side": (44, "<h", (0,), "dimensions|damaged"),
    "no slices": (46, "<h", (0,), "dimensions|damaged"),
    "four dimensions and no volumes": (40, "<5h", (4, 16, 16, 16, 0), "dimensions|damaged"),
    "four dimensions and negative volumes": (40, "<5h", (4, 16, 16, 16, -2), "dimensions|damaged"),
    "more volumes than there are": (40, "<5h", (4, 16, 16, 16, 9000), "truncated"),
    "five dimensions": (40, "<6h", (5, 16, 16, 4, 2, 2), "dimensions|damaged|truncated"),
    "twice as many slices": (46, "<h", (32,), "damaged or truncated|truncated"),
    "huge": (42, "<3h", (30000, 30000, 30000), "more than 536,870,912 in a volume"),
    "as large as is read": (42, "<3h", (800, 800, 800), "truncated|damaged"),
    "long": (42, "<h", (32767,), "truncated|damaged"),
    "no type": (70, "<h", (0,), "not a NIfTI|damaged|intensities"),
    "an unknown type": (70, "<h", (999,), "not a NIfTI|damaged"),
    "bits": (70, "<2h", (1, 1), "not a NIfTI|damaged"),
    "complex": (70, "<2h", (32, 64), "complex64 are no intensities"),
    "colour": (70, "<2h", (128, 24), "colour are no intensities|truncated"),
    "colour with opacity": (70, "<2h", (2304, 32), "colour are no intensities|truncated"),
    "floats of 128 bits": (70, "<2h", (1536, 128), "truncated|damaged"),
    "voxels of 8 bytes": (70, "<2h", (64, 64), "truncated|damaged"),
    "pixels before the header": (108, "<f", (-100.0,), "truncated|damaged|not a NIfTI"),
    "pixels in the header": (108, "<f", (16.0,), "not a NIfTI|damaged"),
    "pixels behind the end": (108, "<f", (1e7,), "truncated|damaged"),
    "pixels nowhere": (108, "<f", (float("nan"),), "not a NIfTI|damaged|truncated"),
    "pixels at infinity": (108, "<f", (float("inf"),), "not a NIfTI|damaged|truncated"),
    "an affine of NaN": (280, "<12f", (float("nan"),) * 12, "no usable orientation"),
    "an affine of infinity": (280, "<12f", (float("inf"),) * 12, "no usable orientation"),
    "an affine of zeros": (280, "<12f", (0.0,) * 12, "no usable orientation"),
    "an affine without height": (312, "<4f", (0.0,) * 4, "no usable orientation"),
    "an affine of one direction": (280, "<12f", (1.0, 0, 0, 0) * 3, "no usable orientation"),
    "a place that is NaN": (292, "<f", (float("nan"),), "no usable orientation"),
    "no magic": (344, "4s", (b"\0\0\0\0",), "not a NIfTI|damaged"),
    "another magic": (344, "4s", (b"abcd",), "not a NIfTI|damaged"),
}
CUTS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda content: b"",
    "a byte": lambda content: content[:1],
    "cut in the magic": lambda content: content[:3],
    "cut in the header": lambda content: content[: min(200, len(content) // 3)],
    "half": lambda content: content[: len(content) // 2],
    "cut near the end": lambda content: content[: -max(40, len(content) // 50)],
    "zeros": lambda content: bytes(len(content)),
    "noise": lambda content: np.random.default_rng(1).bytes(len(content)),
    "text": lambda content: b"no picture of anything, " * (len(content) // 24 + 1),
    "a zip": lambda content: _zipped(content),
}


def _zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a", content)
    return stream.getvalue()


def _volume() -> bytes:
    return bytes(nibabel.Nifti1Image(VOXELS, np.diag([2.0, 2.0, 2.0, 1.0])).to_bytes())


def _nifti(folder: Path) -> dict[str, str]:
    """Files that cannot be used, and a pattern for what is said of each."""
    plain = _volume()
    packed = gzip.compress(plain)
    patterns: dict[str, str] = {}

    def add(name: str, content: bytes, pattern: str = ".") -> None:
        (folder / name).write_bytes(content)
        patterns[name] = pattern

    for name, (offset, form, values, pattern) in HEADER.items():
        content = bytearray(plain)
        content[offset : offset + struct.calcsize(form)] = struct.pack(form, *values)
        add(f"{name}.nii", bytes(content), pattern)
        add(f"{name}.nii.gz", gzip.compress(bytes(content)), pattern)
    for name, cut in CUTS.items():
        add(f"cut {name}.nii", cut(plain))
        add(f"cut {name}.nii.gz", cut(packed))
    add("inner half.nii.gz", gzip.compress(plain[: len(plain) // 2]), "damaged or truncated|truncated")
    add("not packed.nii.gz", plain)
    add("packed.nii", packed)
    add("flipped bytes.nii.gz", packed[:3000] + bytes(byte ^ 0xFF for byte in packed[3000:]))
    add("packed twice.nii.gz", gzip.compress(packed))
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    add("bomb.nii.gz", bomb.compress(bytes(1 << 28)) + bomb.flush())
    lies = bytearray(plain[:352])
    lies[42:48] = struct.pack("<3h", 700, 700, 700)
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    add("short bomb.nii.gz", bomb.compress(bytes(lies)) + bomb.flush(), "truncated|damaged")
    nothing = nibabel.Nifti1Image(np.full((8, 8, 8), np.nan, np.float32), np.eye(4))
    add("nothing finite.nii", nothing.to_bytes(), "no finite values")
    for name in ("loop.nii", "loop.nii.gz"):
        (folder / name).symlink_to(name)
        patterns[name] = "unreadable: Too many levels"
    (folder / "circle").symlink_to(".")
    return patterns


def _encoded(image: Image.Image, form: str, **settings: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **settings)
    return stream.getvalue()


def _images(folder: Path) -> dict[str, str]:
    picture = Image.fromarray(RANDOM.integers(0, 255, (60, 50), dtype=np.uint8))
    deep = Image.fromarray(RANDOM.integers(0, 60000, (60, 50)).astype(np.uint16))
    whole = {
        "8.png": _encoded(picture, "PNG"),
        "16.png": _encoded(deep, "PNG"),
        "8.tif": _encoded(picture, "TIFF"),
        "16.tif": _encoded(deep, "TIFF", compression="tiff_lzw"),
        "8.jpg": _encoded(picture, "JPEG"),
        "8.jp2": _encoded(picture, "JPEG2000"),
        "8.gif": _encoded(picture, "GIF"),
        "8.bmp": _encoded(picture, "BMP"),
    }
    patterns: dict[str, str] = {}
    for name, content in whole.items():
        for how, cut in CUTS.items():
            if not (
                how == "cut near the end" and name.endswith(("jpg", "jp2", "gif"))
            ):  # which lack nothing that shows
                (folder / f"{how} {name}").write_bytes(cut(content))
                patterns[f"{how} {name}"] = "."
    chunk = struct.pack(">II5B", 60000, 60000, 8, 0, 0, 0, 0)
    header = b"IHDR" + chunk
    lies = whole["8.png"][:8] + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (folder / "huge.png").write_bytes(lies + whole["8.png"][33:])
    patterns["huge.png"] = "60000|pixels"
    (folder / "loop.png").symlink_to("loop.png")
    patterns["loop.png"] = "."
    (folder / "circle").symlink_to(".")
    return patterns


KINDS: dict[str, tuple[Callable[[Path], dict[str, str]], int]] = {"nifti": (_nifti, 90), "images": (_images, 70)}


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_listed_with_its_reason_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("LWDDPM_SUBJECT_KEY", "a key of these tests alone")
    write, at_least = KINDS[kind]
    scans = tmp_path / "scans"
    scans.mkdir()
    expected = write(scans)
    assert len(expected) >= at_least
    fine = "fine.nii" if kind == "nifti" else "fine.png"
    whole = nibabel.Nifti1Image(VOXELS, np.eye(4)).to_bytes() if kind == "nifti" else None
    (scans / fine).write_bytes(whole or _encoded(Image.fromarray(VOXELS[..., 0].astype(np.uint8)), "PNG"))
    data = DataConfig.model_validate(
        {
            "source": str(scans), "path": str(tmp_path / "d"), "format": kind, "image_size": SIDE,
            "max_rejected_fraction": 1, "splits": [1, 0, 0],
        }
    )  # fmt: skip
    tracemalloc.start()
    source, reasons, taken = open_source(data), {}, set()
    for name in source.scan()[0]:
        try:
            source.read(name)
        except UnusableFile as error:
            reasons[name.partition("//")[0]] = str(error)
        except SliceLeftOut:
            continue
        else:
            taken.add(name.partition("//")[0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken == {fine}
    assert reasons.keys() == expected.keys()
    assert peak < 150 << 20
    for name, reason in reasons.items():
        assert re.search(expected[name], reason), (name, reason)
        assert str(tmp_path) not in reason
        assert "Traceback" not in reason
    manifest = prepare_dataset(data, lambda function, items, *, description: map(function, items)).manifest
    assert sorted(file.reason for file in manifest.rejected) == sorted(reasons.values())
