"""Section `data`."""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, field_validator

from lwddpm.config.rule import RuleBroken
from lwddpm.config.section import Fraction, PositiveInt, Section, Seed, is_auto, is_empty, is_false

PHANTOM = "phantom"  # the `data.source` that is simulated instead of read
# Settings of folders that are dumped, and counted in digests, only where a job sets them: datasets and run folders of
# versions that did not know them stay those of the same jobs.
OPTIONAL = ("include", "exclude", "label_from", "synthetic", "intensity", "pages")


_MAX_UNMATCHED = 0.05


class DataConfig(Section):
    """Where slices come from and how they become a dataset: square grey images in three splits."""

    incidental = frozenset({"max_rejected_fraction", "max_unmatched_fraction"})  # they only refuse

    source: str = Field(description="folder of images in class/ sub-folders, or 'phantom' (simulated)")
    path: str | None = Field(
        None, description="folder or URL of the prepared dataset; default: datasets/<derived from these settings>"
    )
    image_size: Annotated[int, Field(ge=16, le=1024)] = Field(
        128, description="height and width in pixels; diffusion: divisible by the network's downsampling; GANs: 2^n"
    )
    fit: Literal["pad", "stretch"] = Field("pad", description="how a non-square image becomes square")
    crop_background: bool = Field(False, description="crop the dark border around the head first")
    splits: tuple[Fraction, Fraction, Fraction] = Field(
        (0.8, 0.1, 0.1), description="fractions of train, validation and test; their sum is 1"
    )
    subject_pattern: str | None = Field(
        None,
        description="regular expression on the path relative to source; its group 1 is the subject_id, which stays in "
        "one split; default: every file is a subject of its own",
    )
    max_unmatched_fraction: Fraction = Field(
        _MAX_UNMATCHED,
        exclude_if=lambda fraction: fraction == _MAX_UNMATCHED,
        description="more files than this that subject_pattern does not match fail the job",
    )
    include: tuple[str, ...] = Field(
        (),
        exclude_if=is_empty,
        description="shell patterns on the path relative to source, where * matches / too: only these files are taken",
    )
    exclude: tuple[str, ...] = Field(
        (),
        exclude_if=is_empty,
        description="files that match one of these patterns are not taken, such as '*_mask.tif'",
    )
    pages: Literal["first", "all"] = Field(
        "first",
        exclude_if=lambda pages: pages == "first",
        description="what is taken of a file with several pages (a TIFF stack, an animated PNG, GIF or WebP): 'first', "
        "the others are counted; 'all': every page is a slice, and they stay in one split",
    )
    label_from: Literal["auto", "parent", "none"] | Annotated[int, Field(ge=1, le=100)] = Field(
        "auto",
        exclude_if=is_auto,
        description="the folder whose name is the class: 1 for the first below source, 2 for the second, ...; 'parent' "
        "for the one that holds the file; 'none': no classes; 'auto': the first, or that below Training and Testing",
    )
    synthetic: bool = Field(
        False,
        exclude_if=is_false,
        description="the images are generated: dataset and models are marked as simulated",
    )
    intensity: Literal["percentiles", "full"] | tuple[float, float] = Field(
        "percentiles",
        exclude_if=lambda intensity: intensity == "percentiles",
        description="which values of a file with more than 8 bits, signs or fractions become black and white: "
        "'percentiles' (0.5 and 99.5 of each slice), 'full' (its lowest and highest), or a window [low, high] in the "
        "file's units, the same for all slices",
    )
    max_rejected_fraction: Fraction = Field(0.05, description="more unreadable files than this fail the job")
    max_pixels: PositiveInt = Field(64_000_000, description="images with more pixels are rejected unread")
    phantom_count: PositiveInt = Field(1000, description="number of simulated slices when source is 'phantom'")
    seed: Seed = Field(0, description="decides the splits and the phantoms")

    @field_validator("splits")
    @classmethod
    def _splits_sum_to_one(cls, splits: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(splits) - 1) > 1e-6 or splits[0] <= 0:
            raise RuleBroken("", "train, validation, test must sum to 1 with train > 0", splits)
        return splits

    @field_validator("intensity", mode="wrap")
    @classmethod
    def _range_or_window(cls, given: Any, read: ValidatorFunctionWrapHandler) -> Any:
        remedy = "write percentiles, full, or a window in the file's units, such as [0, 4095]"
        try:
            intensity = read(given)
        except ValidationError:
            rule = "must be percentiles, full or a window [low, high] of two finite numbers"
            raise RuleBroken("", rule, given, remedy) from None
        if isinstance(intensity, tuple) and not intensity[0] < intensity[1]:
            raise RuleBroken("", "of a window [low, high], low must be below high", list(intensity), remedy)
        return intensity

    @field_validator("subject_pattern")
    @classmethod
    def _pattern_has_a_group(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                groups = re.compile(pattern).groups
            except (re.error, OverflowError, RecursionError) as error:  # the last two: a{99999999999}, ((((...
                raise RuleBroken("", f"must be a regular expression ({error})", pattern) from None
            if groups < 1:
                raise RuleBroken("", "needs one group around the subject, such as '(sub-[0-9]+)'", pattern)
        return pattern

    @property
    def dataset_path(self) -> str:
        """`path`, or a default that changes with every setting that changes the dataset."""
        if self.path is not None:
            return self.path
        source = self.source if self.source == PHANTOM else str(Path(self.source).absolute())
        stem = re.sub(r"[^a-z0-9]+", "-", Path(source).name.lower()).strip("-") or "dataset"
        settings = json.dumps([source, self.content_settings()], sort_keys=True)
        return f"datasets/{stem}-{self.image_size}px-{hashlib.sha256(settings.encode()).hexdigest()[:6]}"

    def content_settings(self) -> dict[str, Any]:
        """The settings that decide what is prepared from a given source, as JSON values."""
        only_folders = {"fit", "crop_background", "subject_pattern", "max_pixels", *OPTIONAL}
        unused = only_folders if self.source == PHANTOM else {"phantom_count"}
        return self.model_dump(mode="json", exclude={"source", "path", *self.incidental} | unused)
