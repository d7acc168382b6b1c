"""Section `data`."""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, field_validator, model_validator

from lwddpm.config.rule import RuleBroken
from lwddpm.config.section import Fraction, PositiveInt, Section, Seed, is_auto, is_empty, is_false, is_none

PHANTOM = "phantom"  # the `data.source` that is simulated instead of read
# Settings of folders that are dumped, and counted in digests, only where a job sets them: datasets and run folders of
# versions that did not know them stay those of the same jobs.
OPTIONAL = (
    "include", "exclude", "label_from", "synthetic", "intensity", "pages",
    "format", "plane", "slices", "volumes", "label", "keep_subject_ids", "text", "faces", "withdrawn", "phantom",
    "near_duplicates",
)  # fmt: skip
OF_VOLUMES = ("plane", "slices", "volumes", "label", "keep_subject_ids", "faces")  # an image folder has no use for them

_MAX_UNMATCHED = 0.05


class SlicesConfig(Section):
    """Which slices of a volume are taken."""

    range: tuple[Fraction, Fraction] = Field(
        (0.0, 1.0),
        description="part of the head along the plane's axis, from its lower (back, left) end 0 to its upper (front, "
        "right) end 1",
    )
    range_mm: tuple[float, float] | None = Field(
        None, description="positions in mm in the coordinates of the file, where 0 is its origin; default: all"
    )
    step_mm: Annotated[float, Field(ge=0, le=1000)] = Field(
        0.0, description="distance of slices in mm, of which the nearest are taken; 0: every slice of the volume"
    )
    min_foreground: Fraction = Field(
        0.05, description="slices of which a smaller share is foreground (brighter than the volume's mean) are left out"
    )

    @field_validator("range", "range_mm")
    @classmethod
    def _range_is_not_empty(cls, bounds: tuple[float, float] | None) -> tuple[float, float] | None:
        if bounds is not None and not bounds[0] < bounds[1]:
            raise RuleBroken("", "of a range [low, high], low must be below high", list(bounds))
        return bounds


class DataConfig(Section):
    """Where slices come from and how they become a dataset: square grey images in three splits."""

    incidental = frozenset({"max_rejected_fraction", "max_unmatched_fraction", "consent"})  # they refuse, or tell

    source: str = Field(
        description="folder of images in class/ sub-folders, of volumes (format), or 'phantom' (simulated)"
    )
    format: Literal["images", "nifti", "dicom"] = Field(
        "images",
        exclude_if=lambda format: format == "images",
        description="what the files of source are: 'images'; 'nifti': volumes (.nii, .nii.gz), BIDS or not; 'dicom': "
        "series, in a folder tree or a DICOMDIR",
    )
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
    plane: Literal["axial", "coronal", "sagittal"] = Field(
        "axial", exclude_if=lambda plane: plane == "axial", description="of the slices that are cut from volumes"
    )
    slices: SlicesConfig = Field(
        SlicesConfig(),
        exclude_if=lambda slices: slices == SlicesConfig(),
        description="which slices of a volume are taken",
    )
    volumes: Literal["first", "all"] | Annotated[int, Field(ge=0, le=100_000)] = Field(
        "first",
        exclude_if=lambda volumes: volumes == "first",
        description="of a 4D file, or a series of several times, echoes or weightings: 'first', 'all', or the number "
        "of one, from 0",
    )
    label: str | None = Field(
        None,
        exclude_if=is_none,
        description="class of a volume's slices: 'sequence', or a column of participants.tsv (BIDS, NIfTI); default: "
        "the folders that label_from names, else the sequence",
    )
    keep_subject_ids: str | None = Field(
        None,
        exclude_if=is_none,
        description="the reason why subject ids and file names are kept; default: keyed hashes are kept",
    )
    consent: str | None = Field(
        None,
        exclude_if=is_none,
        description="on which basis the slices may be used, such as a consent form or an ethics vote; for the dossier",
    )
    withdrawn: str | None = Field(
        None,
        exclude_if=is_none,
        description="file of subjects, files or their hashes, one a line, whose slices are left out from now on",
    )
    text: Literal["warn", "refuse", "accept"] = Field(
        "warn",
        exclude_if=lambda text: text == "warn",
        description="what becomes of slices near whose borders text is found: 'warn': they are taken and listed, "
        "'refuse': they are listed as rejected, 'accept': nobody looks",
    )
    faces: Literal["warn", "crop", "accept"] = Field(
        "warn",
        exclude_if=lambda faces: faces == "warn",
        description="what becomes of the faces of volumes: 'warn': they stay, and the job says so; 'crop': what lies "
        "below and in front of the brain becomes black; 'accept': they stay, and nothing is said",
    )
    near_duplicates: Literal["hash", "correlation"] = Field(
        "hash",
        exclude_if=lambda near_duplicates: near_duplicates == "hash",
        description="how copies that differ a little are found, which stay in one split: 'hash', by perceptual hashes; "
        "'correlation': also those that were shifted, turned or re-contrasted, by comparing all slices with all",
    )
    max_rejected_fraction: Fraction = Field(0.05, description="more unreadable files than this fail the job")
    max_pixels: PositiveInt = Field(64_000_000, description="images with more pixels are rejected unread")
    phantom: Literal["slices", "volumes"] = Field(
        "slices",
        exclude_if=lambda phantom: phantom == "slices",
        description="when source is 'phantom': slices with tumours, or heads that are written as NIfTI and read "
        "like any others",
    )
    phantom_count: PositiveInt = Field(1000, description="number of simulated slices, or volumes")
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

    @field_validator("keep_subject_ids")
    @classmethod
    def _reason_is_given(cls, reason: str | None) -> str | None:
        if reason is not None and len(reason.split()) < 2:
            raise RuleBroken("", "must say why, in some words, such as 'public data set ds000114'", reason)
        return reason

    @field_validator("label")
    @classmethod
    def _label_names_nobody(cls, label: str | None) -> str | None:
        if label == "participant_id":
            raise RuleBroken("", "must be a class, not who somebody is", label, "name another column")
        return label

    @model_validator(mode="after")
    def _settings_fit_the_format(self) -> "DataConfig":
        unused = [] if self.reads_volumes or self.source == PHANTOM else OF_VOLUMES
        for key in unused:
            if getattr(self, key) != type(self).model_fields[key].get_default():
                raise RuleBroken(
                    key, "applies to volumes", getattr(self, key), "set data.format=nifti or dicom, or leave it out"
                )
        if self.phantom != "slices" and self.source != PHANTOM:
            raise RuleBroken(
                "phantom", "applies to simulated data", self.phantom, "set data.source=phantom, or leave it out"
            )
        if self.reads_volumes and self.pages != "first":
            raise RuleBroken("pages", "applies to image files", self.pages, "data.slices says which slices are taken")
        return self

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
    def reads_volumes(self) -> bool:
        """Whether the source holds volumes, whose folders and files may be named after persons."""
        return self.format != "images" and self.source != PHANTOM

    @property
    def public_source(self) -> str:
        """What may be recorded of `source`: of a folder of volumes only that it is one, unless names are kept."""
        return f"{self.format} volumes" if self.reads_volumes and self.keep_subject_ids is None else self.source

    @property
    def dataset_path(self) -> str:
        """`path`, or a default that changes with every setting that changes the dataset."""
        if self.path is not None:
            return self.path
        source = self.source if self.source == PHANTOM else str(Path(self.source).absolute())
        stem = re.sub(r"[^a-z0-9]+", "-", Path(source).name.lower()).strip("-") or "dataset"
        stem = stem if self.public_source == self.source else self.format
        settings = json.dumps([source, self.content_settings()], sort_keys=True)
        return f"datasets/{stem}-{self.image_size}px-{hashlib.sha256(settings.encode()).hexdigest()[:6]}"

    def content_settings(self) -> dict[str, Any]:
        """The settings that decide what is prepared from a given source, as JSON values."""
        only_folders = {"fit", "crop_background", "subject_pattern", "max_pixels", *OPTIONAL} - {"near_duplicates"}
        if self.source == PHANTOM and self.phantom == "volumes":
            only_folders -= {"phantom", "fit", "crop_background", "plane", "slices", "intensity", "faces"}
        unused = only_folders if self.source == PHANTOM else {"phantom_count", "phantom"}
        return self.model_dump(mode="json", exclude={"source", "path", *self.incidental} | unused)
