"""Marks in the text chunks of PNG files: Description for people, lwddpm for machines."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lwddpm.marks.mark import NOTICE, Mark

KEY = "lwddpm"


def encode(image: np.ndarray, mark: Mark) -> bytes:
    """A file of a slice, uint8 [H, W]."""
    texts = {
        "Description": f"{NOTICE}; {mark.words()}",
        "Software": f"lwddpm {mark.lwddpm}",
        "Creation Time": mark.drawn_at.strftime("%a, %d %b %Y %H:%M:%S +0000"),
        KEY: mark.text(),
    }
    return with_texts(image, texts)


def with_texts(image: np.ndarray, texts: dict[str, str]) -> bytes:
    """A file of a picture, uint8 [H, W], with text chunks."""
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    stream = io.BytesIO()
    Image.fromarray(np.asarray(image)).save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def mark_of(path: Path) -> str | None:
    """The text of the mark of a PNG, as far as its head says; None of what cannot be read."""
    if path.suffix.lower() != ".png":
        return None
    try:
        with Image.open(path) as picture:
            mark = picture.info.get(KEY)
    except Exception:  # whoever reads it says why
        return None
    return None if mark is None else str(mark)
