"""Files are made byte by byte, as the specifications of PNG and TIFF 6.0 say, so that no library is its own oracle."""

import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from lwddpm.data.decoding import decode
from lwddpm.data.sources import UnusableFile

LIMIT = 64_000_000
RAMP = np.add.outer(np.arange(40), np.arange(50)) * 4095 // 88  # 0..4095, as 12-bit scans have
EXPECTED = RAMP * (255 / 4095)


def read(path, intensity="full"):
    return np.asarray(decode(path, LIMIT, intensity)[0], dtype=float)


def write_png(path, channels, colour_type, **chunks):
    """16 bits per channel, no filter."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = channels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
        + b"".join(chunk(kind.encode(), body) for kind, body in chunks.items())
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def write_tiff(path, values, sample_format, photometric=1, order="<", **tags):
    """One uncompressed strip; values [H, W] or [H, W, C] of a numpy type."""
    height, width, *channels = values.shape
    channels = channels[0] if channels else 1
    bits = values.dtype.itemsize * 8
    strip = values.astype(values.dtype.newbyteorder(order)).tobytes()
    entries = {
        256: (width,), 257: (height,), 258: (bits,) * channels, 259: (1,), 262: (photometric,), 273: (0,),
        277: (channels,), 278: (height,), 279: (len(strip),), 339: (sample_format,) * channels,
    } | {int(tag): (value,) for tag, value in tags.items()}  # fmt: skip
    first_extra = 8 + 2 + 12 * len(entries) + 4
    directory, extra = struct.pack(f"{order}H", len(entries)), b""
    strip_at = first_extra + sum(4 * len(of) for of in entries.values() if len(of) > 1)
    for tag, of in sorted((entries | {273: (strip_at,)}).items()):
        numbers = struct.pack(f"{order}{len(of)}I", *of)
        if len(of) > 1:
            numbers, extra = struct.pack(f"{order}I", first_extra + len(extra)), extra + numbers
        directory += struct.pack(f"{order}HHI", tag, 4, len(of)) + numbers
    mark = b"II" if order == "<" else b"MM"
    path.write_bytes(mark + struct.pack(f"{order}HI", 42, 8) + directory + bytes(4) + extra + strip)


@pytest.mark.parametrize("opaque", [65535, 4095])
@pytest.mark.parametrize(("colour_type", "num_colours"), [(4, 1), (2, 3), (6, 3)])
def test_sixteen_bit_png_keeps_its_depth(tmp_path, colour_type, num_colours, opaque):
    channels = [RAMP] * num_colours
    if colour_type > 2:
        channels.append(np.where(np.arange(50) < 25, opaque, 0) * np.ones((40, 1), int))
    write_png(tmp_path / "a.png", np.dstack(channels), colour_type)
    expected = EXPECTED
    if colour_type > 2:  # the range is that of what can be seen
        expected = np.where(np.arange(50) < 25, RAMP * (255 / RAMP[:, :25].max()), 0)
    np.testing.assert_allclose(read(tmp_path / "a.png"), expected, atol=0.501)


def test_colours_of_sixteen_bits_become_luma(tmp_path):
    colours = np.random.default_rng(0).integers(0, 4096, (40, 50, 3))
    luma = colours @ (0.299, 0.587, 0.114)
    write_png(tmp_path / "a.png", colours, 2)
    write_tiff(tmp_path / "a.tif", colours.astype(np.uint16), 1, photometric=2)
    for name in ("a.png", "a.tif"):
        expected = (luma - luma.min()) * (255 / np.ptp(luma))
        np.testing.assert_allclose(read(tmp_path / name), expected, atol=0.501)
        np.testing.assert_allclose(read(tmp_path / name, (0.0, 8190.0)), luma * (255 / 8190), atol=0.501)


def test_orientation_of_deep_files(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row is at the right, the first column on top
    write_png(tmp_path / "a.png", np.dstack([RAMP] * 3), 2, eXIf=exif.tobytes()[6:])
    write_tiff(tmp_path / "a.tif", RAMP.astype(np.uint16), 1, **{"274": 6})
    for name in ("a.png", "a.tif"):
        np.testing.assert_allclose(read(tmp_path / name), np.rot90(EXPECTED, -1), atol=0.501)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("values", "sample_format"),
    [
        (RAMP.astype(np.uint16), 1),
        (RAMP.astype(np.uint32) * 1_000_000, 1),  # above 2^31
        (RAMP.astype(np.int16) - 2000, 2),
        (RAMP.astype(np.int32) - 2000, 2),
        ((RAMP // 16 - 128).astype(np.int8), 2),
        (RAMP.astype(np.float32) / 3 - 700, 3),
        (RAMP.astype(np.float64) / 3 - 700, 3),
    ],
    ids=lambda values: str(getattr(values, "dtype", values)),
)
def test_numbers_of_a_tiff_are_those_of_the_file(tmp_path, values, sample_format, order):
    write_tiff(tmp_path / "a.tif", values, sample_format, order=order)
    expected = (values - values.min().astype(float)) * (255 / np.ptp(values.astype(float)))
    np.testing.assert_allclose(read(tmp_path / "a.tif"), expected, atol=0.501)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero_is_the_photometric_sense_at_every_depth(tmp_path, dtype):
    values = (RAMP // (16 if dtype is np.uint8 else 1)).astype(dtype)
    write_tiff(tmp_path / "black.tif", values, 1, photometric=1)
    write_tiff(tmp_path / "white.tif", values, 1, photometric=0)
    for intensity in ("full", "percentiles"):
        black, white = (read(tmp_path / f"{name}.tif", intensity) for name in ("black", "white"))
        np.testing.assert_allclose(white, 255 - black, atol=1)
    assert read(tmp_path / "white.tif")[0, 0] == 255


@pytest.mark.parametrize("compression", ["lzw", "deflate", "zstd", "packbits"])
def test_compressed_tiff(tmp_path, compression):
    tifffile.imwrite(tmp_path / "a.tif", RAMP.astype(np.uint16), compression=compression, tile=(16, 16))
    np.testing.assert_allclose(read(tmp_path / "a.tif"), EXPECTED, atol=0.501)


def test_opacity_of_a_tiff(tmp_path):
    half = np.where(np.arange(50) < 25, 65535, 0) * np.ones((40, 1), int)
    stored = np.dstack([RAMP + 1000, half]).astype(np.uint16)
    shown = np.where(np.arange(50) < 25, RAMP * (255 / RAMP[:, :25].max()), 0)
    write_tiff(tmp_path / "unassociated.tif", stored, 1, **{"338": 2})
    np.testing.assert_allclose(read(tmp_path / "unassociated.tif"), shown, atol=0.501)
    write_tiff(tmp_path / "other.tif", stored, 1, **{"338": 0})  # another channel, no opacity
    np.testing.assert_allclose(read(tmp_path / "other.tif"), EXPECTED, atol=0.501)


def test_jpeg_2000(tmp_path):
    for name, values in {"grey": RAMP, "rgb": np.dstack([RAMP] * 3)}.items():
        encoded = imagecodecs.jpeg2k_encode(values.astype(np.uint16), level=0, codecformat="jp2")
        (tmp_path / f"{name}.jp2").write_bytes(encoded)
        np.testing.assert_allclose(read(tmp_path / f"{name}.jp2"), EXPECTED, atol=0.501)
        np.testing.assert_allclose(read(tmp_path / f"{name}.jp2", (0.0, 8190.0)), EXPECTED / 2, atol=0.501)


@pytest.mark.parametrize("largest", [4095, 65535])
def test_portable_maps_are_read_in_the_units_of_the_file(tmp_path, largest):
    for name, kind, values in (("a.pgm", "P5", RAMP), ("a.ppm", "P6", np.dstack([RAMP] * 3))):
        (tmp_path / name).write_bytes(f"{kind}\n50 40\n{largest}\n".encode() + values.astype(">u2").tobytes())
        np.testing.assert_allclose(read(tmp_path / name), EXPECTED, atol=0.501)
        np.testing.assert_allclose(read(tmp_path / name, (0.0, 8190.0)), EXPECTED / 2, atol=0.501)
    (tmp_path / "cut.ppm").write_bytes((tmp_path / "a.ppm").read_bytes()[:5000])
    with pytest.raises(UnusableFile, match="damaged or truncated"):
        decode(tmp_path / "cut.ppm", LIMIT)


def test_fits_of_sixteen_bits_has_a_sign(tmp_path):
    cards = ["SIMPLE  = T", "BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 50", "NAXIS2  = 40", "END"]
    header = "".join(f"{card:80}" for card in cards).ljust(2880).encode()
    values = (RAMP - 2000).astype(">i2")
    (tmp_path / "a.fits").write_bytes(header + values[::-1].tobytes() + bytes(2880 - values.nbytes % 2880))
    np.testing.assert_allclose(read(tmp_path / "a.fits"), EXPECTED, atol=0.501)


def test_a_page_of_too_many_numbers_is_refused_unread(tmp_path):
    tifffile.imwrite(tmp_path / "bomb.tif", np.zeros((10, 10, 900), np.uint16), planarconfig="contig")
    with pytest.raises(UnusableFile, match="90,000 numbers in one page"):
        decode(tmp_path / "bomb.tif", 100)


def test_deep_files_that_cannot_be_read_say_why(tmp_path):
    write_png(tmp_path / "cut.png", np.dstack([RAMP] * 3), 2)
    write_tiff(tmp_path / "cut.tif", RAMP.astype(np.float64), 3)
    for name in ("cut.png", "cut.tif"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    write_tiff(tmp_path / "cmyk.tif", np.dstack([RAMP] * 4).astype(np.uint16), 1, photometric=5)
    reasons = {"cut.png": "damaged or truncated", "cut.tif": "damaged or truncated", "cmyk.tif": "save it as grey or R"}
    for name, reason in reasons.items():
        with pytest.raises(UnusableFile, match=reason):
            decode(tmp_path / name, LIMIT)
    write_tiff(tmp_path / "large.tif", RAMP.astype(np.float64), 3)
    with pytest.raises(UnusableFile, match=r"50 x 40: more pixels than data\.max_pixels = 1999"):
        decode(tmp_path / "large.tif", 1999)


def test_damaged_bytes_are_a_reason_and_never_another_error(tmp_path):
    random = np.random.default_rng(0)
    tifffile.imwrite(tmp_path / "a.tif", np.stack([RAMP] * 3).astype(np.uint16), compression="lzw", photometric=1)
    tifffile.imwrite(tmp_path / "b.tif", RAMP.astype(np.float64), compression="deflate", tile=(16, 16))
    write_png(tmp_path / "c.png", np.dstack([RAMP] * 3), 2)
    reasons = set()
    for name in ("a.tif", "b.tif", "c.png"):
        whole = (tmp_path / name).read_bytes()
        for _ in range(100):
            damaged = bytearray(whole)
            for place in random.integers(0, min(len(whole), random.choice([300, len(whole)])), 5):
                damaged[place] = random.integers(256)
            (tmp_path / name).write_bytes(damaged)
            try:
                decode(tmp_path / name, LIMIT)
            except UnusableFile as error:
                reasons.add(str(error))
    assert len(reasons) > 10
