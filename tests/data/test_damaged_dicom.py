"""DICOM files that are damaged or lie: each is refused with a reason, in little memory, and the others are taken."""

import itertools
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from tests.data.dicom_files import CODECS, dataset, save

from lwddpm.config import DataConfig
from lwddpm.data.dicom import Encoding, Header, read_header
from lwddpm.data.dicom_folder import open_dicom_folder
from lwddpm.data.dicom_pixels import COMPRESSED, Place, read_pictures
from lwddpm.data.prepare import prepare_dataset
from lwddpm.data.sources import SliceLeftOut, UnusableFile

SIDE = 48
RANDOM = np.random.default_rng(0)
PICTURE = (RANDOM.normal(1500, 40, (SIDE, SIDE)) + 200 * np.arange(SIDE) / SIDE).astype(np.uint16)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LWDDPM_SUBJECT_KEY", "a key of these tests alone")


def whole(codec: str, **fields: Any) -> Dataset:
    return dataset(PICTURE, (0, 0, 0), number=1, codec=codec, bits=12, **fields)


def _pixels_at(content: bytes) -> int:
    """Where the pixel data element begins, in either order of bytes."""
    return max(content.rfind(b"\xe0\x7f\x10\x00"), content.rfind(b"\x7f\xe0\x00\x10"))


def _cut(share: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(share * len(content))]


def _before_pixels(content: bytes) -> bytes:
    return content[: _pixels_at(content)]


def _in_pixels(content: bytes) -> bytes:
    at = _pixels_at(content)
    return content[: at + (len(content) - at) // 2]


# what is done to the bytes of a whole file; deflated ones are cut alone, as nothing of them can be found
BYTES: dict[str, Callable[[bytes], bytes]] = {
    "cut to the mark": lambda content: content[:132],
    "cut in the meta elements": lambda content: content[:200],
    "cut in the header": lambda content: content[:420],
    "cut before the pixels": _before_pixels,
    "cut in the pixels": _in_pixels,
}
# what is wrong in the header, and a part of what is said of it
FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "no size": ({"Rows": 0}, "says no size"),
    "more rows than there are": ({"Rows": SIDE + 1}, "truncated|damaged"),
    "huge": ({"Rows": 60000, "Columns": 60000}, "more than 8192 along a side"),
    "many frames": ({"NumberOfFrames": 2_000_000}, "voxels: more than|frames"),
    "a few frames": ({"NumberOfFrames": 3}, "truncated|frames without positions"),
    "7 bits": ({"BitsAllocated": 7}, "must be 8, 16 or 32"),
    "more bits than there are": ({"BitsStored": 20}, "must be 8, 16 or 32"),
    "no position": ({"ImagePositionPatient": None}, "no position"),
    "a position of two": ({"ImagePositionPatient": [1, 2]}, "no position"),
    "an orientation of zeros": ({"ImageOrientationPatient": [0] * 6}, "perpendicular"),
    "no spacing": ({"PixelSpacing": [0, 0]}, "no distance of pixels"),
    "no slope": ({"RescaleSlope": 0}, "its slope is 0"),
    "no series": ({"SeriesInstanceUID": ""}, "no SeriesInstanceUID"),
}


def damaged(folder: Path) -> dict[str, str]:
    """Files that cannot be used, and a pattern for what is said of each."""
    folder.mkdir()
    patterns = {}
    numbers = itertools.count()

    def bytes_of(codec: str) -> bytes:
        file = save(whole(codec, series=f"1.1.{next(numbers)}"), folder / "whole")
        file.rename(folder.parent / "whole")
        return (folder.parent / "whole").read_bytes()

    for codec in CODECS:
        for name, change in BYTES.items():
            if codec != "deflated" or "pixels" not in name:
                patterns[f"{codec} {name}"] = "."
                (folder / f"{codec} {name}").write_bytes(change(bytes_of(codec)))
        for number, (name, (fields, pattern)) in enumerate(FIELDS.items()):
            save(whole(codec, **{"series": f"1.{number}.{len(patterns)}"} | fields), folder / f"{codec} {name}")
            patterns[f"{codec} {name}"] = pattern
        if CODECS[codec][1] is not None or codec == "RLE":
            for number, stream in enumerate((b"\0\0", b"\0" * 64, bytes(200), RANDOM.bytes(3000), b"\xff\xd8\xff\xd9")):
                broken = whole(codec, series=f"2.{number}.{len(patterns)}")
                broken.PixelData = encapsulate([stream])
                save(broken, folder / f"{codec} stream {number}")
                patterns[f"{codec} stream {number}"] = "slice 1 of 1: (damaged|truncated)"
    rows = bytes_of("explicit").index(b"\x28\x00\x10\x00US")

    def rows_as(element: bytes) -> bytes:
        plain = bytes_of("explicit")
        return plain[: rows + 4] + element + plain[rows + 4 + len(element) :]

    texts = {
        "rows are a text": rows_as(b"LO"),
        "rows are a sequence": rows_as(b"SQ"),
        "an element without end": rows_as(b"OB\0\0\xfe\xff\xff\xff"),
        "text.dcm": b"no picture" * 100,
        "empty.dcm": b"",
        "archive.IMA": b"PK\3\4" + bytes(500),
    }
    for name, content in texts.items():
        (folder / name).write_bytes(content)
    meta = bytes_of("deflated")
    meta = meta[: 144 + int.from_bytes(meta[140:144], "little")]
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = meta + deflate.compress(b"\x08\0\x05\0UN\0\0\xf0\xff\xff\xff" + bytes(1 << 28)) + deflate.flush()
    (folder / "bomb").write_bytes(bomb)
    (folder / "link").symlink_to("link")
    (folder / "folder").symlink_to(".")
    return patterns | dict.fromkeys([*texts, "bomb", "link"], ".")


def test_damaged_files_are_listed_with_the_reason_in_little_memory(tmp_path: Path) -> None:
    import re

    expected = damaged(tmp_path / "scans")
    assert len(expected) > 150
    save(whole("explicit", series="5"), tmp_path / "scans" / "fine")
    tracemalloc.start()
    source = open_dicom_folder(DataConfig(source=str(tmp_path / "scans"), format="dicom"))
    reasons = {}
    for name in source.scan()[0]:
        try:
            source.read(name)
        except UnusableFile as error:
            reasons[name.partition("//")[0]] = str(error)
        except SliceLeftOut:
            continue
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300 << 20
    assert reasons.keys() == expected.keys()
    for name, reason in reasons.items():
        assert re.search(expected[name], reason), (name, reason)
        assert "scans" not in reason
    data = DataConfig(
        source=str(tmp_path / "scans"), path=str(tmp_path / "d"), format="dicom", max_rejected_fraction=1,
        splits=(1, 0, 0),
    )  # fmt: skip
    manifest = prepare_dataset(data, lambda function, items, *, description: map(function, items)).manifest
    assert manifest.num == 1
    assert sorted(file.reason for file in manifest.rejected) == sorted(reasons.values())


def test_bytes_changed_anywhere_end_in_a_reason_or_a_picture(tmp_path: Path) -> None:
    """Of 600 files with some bytes changed or left out, in all encodings."""
    outcomes: dict[str, int] = {}
    for codec in CODECS:
        content = save(whole(codec), tmp_path / "file").read_bytes()
        for seed in range(75):
            random = np.random.default_rng(seed)
            changed = np.frombuffer(content, np.uint8).copy()
            places = random.integers(132, len(changed), random.integers(1, 30))
            changed[places] = random.integers(0, 256, len(places))
            start = int(random.integers(132, len(changed)))
            cut = changed.tobytes() if seed % 3 else changed[:start].tobytes() + changed[start + 50 :].tobytes()
            (tmp_path / "file").write_bytes(cut)
            header = read_header(tmp_path / "file")
            if isinstance(header, Header):
                try:
                    places = [Place(header.offset, header.length, 0, len(header.frames))]
                    (picture,) = read_pictures(tmp_path / "file", header.encoding, places)
                except Exception as error:  # becomes a reason in `reason_of`
                    outcomes[type(error).__name__] = outcomes.get(type(error).__name__, 0) + 1
                else:
                    assert picture.shape == (header.encoding.rows, header.encoding.columns)
                    outcomes["picture"] = outcomes.get("picture", 0) + 1
            else:
                outcomes["reason"] = outcomes.get("reason", 0) + 1
    assert sum(outcomes.values()) == 600
    assert min(outcomes["picture"], outcomes["reason"], outcomes["UnusableFile"]) > 20


SHIPPED = sorted(
    path
    for path in Path(pydicom.__file__).parent.joinpath("data").glob("*/**/*")
    if path.is_file() and path.parent.name != "palettes" and path.suffix != ".py"
)


def test_pydicoms_own_files_are_taken_or_say_why_not() -> None:
    """Pictures equal those of pydicom's own reader."""
    taken = 0
    reasons = set()
    for path in SHIPPED:
        header = read_header(path)
        if isinstance(header, Header):
            (picture,) = read_pictures(path, header.encoding, [Place(header.offset, header.length, 0, 1)])
            assert np.array_equal(picture, pydicom.dcmread(path).pixel_array)
            taken += 1
        else:
            assert header.reason
            assert f"{path.stem}." not in header.reason
            reasons.add(header.reason.partition(" (")[0])
    assert (taken, len(SHIPPED) > 180) == (6, True)
    passed_over = {"localizers", "derived pictures", "secondary captures and screenshots", "indexes"}
    assert passed_over | {"objects of another kind than MR images", "files that are no DICOM"} < reasons


# of pydicom's files the uncompressed one that shows the same picture, or what pydicom reads with another library
MR_SMALL = [
    "MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "MR_small_implicit", "MR_small_bigendian",
    "MR_small_expb", "MR_small_padded",
]  # fmt: skip


@pytest.mark.parametrize("name", [*MR_SMALL, "693_J2KI", "J2K_pixelrep_mismatch", "JPEG2000"])
def test_files_of_other_encoders_are_read_as_pydicom_reads_them(tmp_path: Path, name: str) -> None:
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    given = pydicom.dcmread(folder / f"{name}.dcm")
    expected = pydicom.dcmread(folder / "MR_small.dcm").pixel_array if name in MR_SMALL else given.pixel_array
    given.SOPClassUID, given.ImageType = uid.MRImageStorage, ["ORIGINAL", "PRIMARY"]
    given.ImagePositionPatient, given.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    given.PixelSpacing = [1, 1]
    header = read_header(save(given, tmp_path / "file"))
    assert isinstance(header, Header), header
    (picture,) = read_pictures(tmp_path / "file", header.encoding, [Place(header.offset, header.length, 0, 1)])
    assert np.array_equal(picture, expected)


@pytest.mark.parametrize(("name", "bits"), [("JPGExtended", 12), ("JPEG-lossy", 16)])
def test_jpeg_of_12_bits_is_read(name: str, bits: int) -> None:
    """GDCM and Pillow read none; two files of one picture, one lossy, differ little."""
    file = Path(pydicom.__file__).parent / "data" / "test_files" / f"{name}.dcm"
    given = pydicom.dcmread(file)
    syntax = str(given.file_meta.TransferSyntaxUID)
    assert syntax in COMPRESSED
    encoding = Encoding(syntax, given.Rows, given.Columns, 16, given.BitsStored, given.HighBit, False, False)
    content = file.read_bytes()
    place = Place(_pixels_at(content) + 12, -1, 0, 1)
    (picture,) = read_pictures(file, encoding, [place])
    assert picture.shape == (given.Rows, given.Columns)
    assert 255 < picture.max() < 2**bits
