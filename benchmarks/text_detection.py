"""How often the text detector of `data.text` is right: rendered into real slices, and in those as they are.

    python benchmarks/text_detection.py FOLDER [--size 128] [--slices 400] [--flagged DIR]

FOLDER is an image folder (`data.source`). Text is written into slices in which none is found, at the prepared size:
names, dates and settings in fonts that matplotlib ships, on clear ground (grey values within 25) or over the head.
Whoever wants to know which alarms are real looks at the pictures that --flagged writes.
"""

import argparse
import io
import time
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lwddpm.config import DataConfig
from lwddpm.data.burned_in_text import find_text
from lwddpm.data.image_folder import open_image_folder
from lwddpm.data.sources import UnusableFile

TEXTS = ("DOE^JANE", "Smith, John", "1962-03-14", "SE: 4 IM: 12", "TR 500 TE 15", "St. Mary Hospital", "ID 4711-0815")
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif")
SIZES = (8, 10, 12, 16, 20, 28)  # pixels of a font; capitals have 0.73 of that
LEVELS = (80, 120, 180, 255)
CLEAR = 25


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder")
    arguments.add_argument("--size", type=int, default=128)
    arguments.add_argument("--slices", type=int, default=400, help="with rendered text")
    arguments.add_argument("--flagged", type=Path, help="folder for slices in which text is found")
    given = arguments.parse_args()
    source = open_image_folder(DataConfig(source=given.folder, image_size=given.size))
    images: dict[str, np.ndarray] = {}
    for name in source.scan()[0]:
        try:
            images[name] = source.read(name).image
        except UnusableFile:
            continue
    start = time.process_time()
    found = {name: find_text(image) for name, image in images.items()}
    seconds = time.process_time() - start
    flagged = [name for name, lines in found.items() if lines]
    per_slice = f"{1000 * seconds / len(images):.2f} ms each"
    print(f"{given.size} px: text found in {len(flagged)} of {len(images)} slices as they are; {per_slice}")
    for name in flagged:
        print(f"  {name}")
        if given.flagged:
            given.flagged.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(images[name]).convert("RGB")
            for line in found[name]:
                ImageDraw.Draw(picture).rectangle(
                    (line.left - 2, line.top - 2, line.right + 1, line.bottom + 1), None, "red"
                )
            picture.resize((4 * given.size,) * 2).save(given.flagged / f"{name.replace('/', '_')}.png")
    _recall([images[name] for name in images if not found[name]], given.slices)


def _recall(images: list[np.ndarray], num: int) -> None:
    """Share of rendered texts that are found, by ground, size, level and font."""
    random = np.random.default_rng(0)
    hits: dict[str, list[bool]] = defaultdict(list)
    for index in random.choice(len(images), min(num, len(images)), replace=False):
        picture = Image.fromarray(images[index])
        font_name, size, level = random.choice(FONTS), int(random.choice(SIZES)), int(random.choice(LEVELS))
        font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font_name}.ttf", size)
        draw, text = ImageDraw.Draw(picture), str(random.choice(TEXTS))
        while draw.textlength(text, font) > picture.width - 8 and len(text) > 4:
            text = text[:-1]
        at = (
            int(random.choice([4, picture.width - 4 - int(draw.textlength(text, font))])),
            int(random.choice([4, picture.height - size - 6])),
        )
        left, top, right, bottom = (int(side) for side in draw.textbbox(at, text, font))
        ground = np.asarray(picture)[max(0, top - 2) : bottom + 2, max(0, left - 2) : right + 2]
        clear = np.percentile(ground, 95) - np.percentile(ground, 5) <= CLEAR
        draw.text(at, text, fill=level, font=font)
        if random.random() < 0.5:
            stream = io.BytesIO()
            picture.save(stream, "JPEG", quality=75)
            picture = Image.open(stream)
        found = bool(find_text(np.asarray(picture)))
        if not clear:
            hits["over the head"].append(found)
            continue
        for group in ("clear ground", f"  font of {size:2d} px", f"  level {level:3d}", f"  {font_name}"):
            hits[group].append(found)
    for group, values in sorted(hits.items(), key=lambda item: (item[0].startswith(" "), item[0])):
        print(f"{group:24} {sum(values):4d} of {len(values):4d} texts found, {np.mean(values):.1%}")


if __name__ == "__main__":
    main()
