import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from skimage import data as skimage_data

from lwddpm.data.decoding import decode, resample
from lwddpm.data.sources import UnusableFile

RNG = np.random.default_rng(0)
PIXELS = np.asarray(Image.fromarray(skimage_data.camera()).resize((96, 64)))
LIMIT = 64_000_000


def read(path, intensity="percentiles"):
    return np.asarray(decode(path, LIMIT, intensity)[0])


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.bmp", "a.gif", "a.webp"])
def test_lossless_grey_is_read_unchanged(tmp_path, name):
    Image.fromarray(PIXELS).save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
    np.testing.assert_array_equal(read(tmp_path / name), PIXELS)


def test_palette_and_bilevel(tmp_path):
    Image.fromarray(PIXELS).convert("P").save(tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as image:
        assert image.mode == "P"
    np.testing.assert_array_equal(read(tmp_path / "p.png"), PIXELS)
    Image.fromarray(PIXELS > 99).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read(tmp_path / "b.png"), 255 * (PIXELS > 99))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_twelve_bits_in_sixteen_use_the_whole_range(tmp_path, suffix):
    values = RNG.integers(0, 4096, (40, 50), dtype=np.uint16)
    values[0, :2] = 0, 4095
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(read(tmp_path / f"a.{suffix}", "full"), values * (255 / 4095), atol=0.501)


def test_float_range_constants_and_nan(tmp_path):
    values = RNG.normal(-5, 3, (20, 30)).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "f.tiff")
    expected = (values - values.min()) / (values.max() - values.min()) * 255
    np.testing.assert_allclose(read(tmp_path / "f.tiff", "full"), expected, atol=0.51)
    Image.fromarray(np.full((8, 8), 1000, np.uint16)).save(tmp_path / "c.png")
    assert not read(tmp_path / "c.png").any()
    values[3, 3] = np.nan
    Image.fromarray(values).save(tmp_path / "n.tiff")
    with pytest.raises(UnusableFile, match="finite"):
        read(tmp_path / "n.tiff")


def test_transparent_pixels_are_black(tmp_path):
    alpha = np.where(np.arange(96) < 48, 255, 0).astype(np.uint8) * np.ones((64, 1), np.uint8)
    Image.merge("LA", (Image.fromarray(PIXELS), Image.fromarray(alpha))).save(tmp_path / "la.png")
    Image.merge("RGBA", (*[Image.fromarray(PIXELS)] * 3, Image.fromarray(alpha))).save(tmp_path / "rgba.png")
    for name in ("la.png", "rgba.png"):
        np.testing.assert_array_equal(read(tmp_path / name), np.where(alpha, PIXELS, 0))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_luma_equals_pillows_conversion_up_to_rounding(tmp_path, mode):
    colour = np.asarray(Image.fromarray(skimage_data.astronaut()).resize((160, 120)))
    Image.fromarray(colour).convert(mode).save(tmp_path / "a.jpg", quality=95)
    expected = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB").convert("L"), dtype=int)
    difference = np.abs(read(tmp_path / "a.jpg") - expected)
    assert difference.mean() < 0.5
    assert np.percentile(difference, 99) <= 2  # saturated colours are clipped after, not before the conversion


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    np.testing.assert_array_equal(read(tmp_path / "a.png"), expected)
    assert (expected.shape == PIXELS.shape) == (orientation < 5)


def png_header(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_bad_files_say_why(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not an image")
    Image.fromarray(PIXELS).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:1200])
    Image.fromarray(PIXELS).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:1500])
    for side in (9_000, 60_000):  # beyond max_pixels, and beyond what Pillow opens at all
        (tmp_path / f"bomb{side}.png").write_bytes(png_header(side, side))
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    reasons = {
        "empty.jpg": "^empty file$",
        "text.jpg": "not an image",
        "cut.jpg": "truncated",
        "cut.png": "damaged or truncated",
        "bomb9000.png": "9000 x 9000: more pixels than data.max_pixels = 64000000",
        "bomb60000.png": "more pixels than data.max_pixels = 64000000",
        "gone.png": "unreadable: No such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(UnusableFile, match=reason) as caught:
            decode(tmp_path / name, LIMIT)
        assert str(tmp_path) not in str(caught.value)
    limit = Image.MAX_IMAGE_PIXELS
    assert decode(tmp_path / "whole.png", PIXELS.size)[0].size == (96, 64)
    with pytest.raises(UnusableFile, match="max_pixels"):
        decode(tmp_path / "whole.png", PIXELS.size - 1)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_pad_keeps_the_aspect_ratio_and_stretch_fills():
    wide = Image.fromarray(np.full((50, 200), 200, np.uint8))
    padded = resample(wide, 64, "pad", crop_background=False)
    assert padded.shape == (64, 64)
    np.testing.assert_array_equal(np.flatnonzero(padded[:, 32]), np.arange(24, 40))
    assert (resample(wide, 64, "stretch", crop_background=False) == 200).all()


def test_resampling_is_antialiased_and_close_to_plain_lanczos():
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (512, 256)))  # beyond the target's resolution
    np.testing.assert_allclose(resample(stripes, 128, "pad", crop_background=False)[:, 4:-4], 127.5, atol=3)
    picture = Image.fromarray(skimage_data.camera())
    plain = np.asarray(picture.resize((128, 128), Image.Resampling.LANCZOS), dtype=int)
    assert np.abs(resample(picture, 128, "pad", crop_background=False) - plain).mean() < 1


def test_crop_background_finds_the_head_despite_noise():
    noisy = RNG.integers(0, 8, (300, 400), dtype=np.uint8)
    noisy[5, 5] = 255  # a speck
    noisy[100:200, 160:260] = 180
    assert (resample(Image.fromarray(noisy), 64, "pad", crop_background=True)[4:-4, 4:-4] > 150).all()
    dark = Image.fromarray(np.zeros((30, 30), np.uint8))
    assert not resample(dark, 16, "pad", crop_background=True).any()
