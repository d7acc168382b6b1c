"""Volumes as a source of slices: orientation, proportions, intensities, which slices, BIDS, and damaged files."""

import gzip
import itertools
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nilearn.datasets import load_mni152_template

from lwddpm.config import DataConfig, SlicesConfig
from lwddpm.data.class_folders import describe_classes
from lwddpm.data.nifti_folder import NiftiFolder, open_nifti_folder, sequence_of
from lwddpm.data.prepare import check_source, open_source, prepare_dataset
from lwddpm.data.remarks import remarks
from lwddpm.data.sources import Slice, SliceLeftOut, UnusableFile
from lwddpm.data.store import SPLITS, open_dataset
from lwddpm.data.volume_slices import percentiles
from lwddpm.errors import ConfigError, DataError
from lwddpm.jobfile import load_job

SIDE = 24  # voxels of 2 mm, and pixels: nothing is resampled
MM = 2.0


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LWDDPM_SUBJECT_KEY", "a key of these tests alone")


def serial(function, items, *, description):
    return map(function, items)


def head(right: np.ndarray, front: np.ndarray, top: np.ndarray) -> np.ndarray:
    """Signal at world coordinates in mm: an ellipsoid that is alike along no axis."""
    inside = (right / 20) ** 2 + (front / 16) ** 2 + (top / 18) ** 2 < 1
    return inside * (500 + 8 * right + 5 * front + 3 * top)


def phantom() -> nibabel.Nifti1Image:
    """The head on a grid whose axes point to the right, the front and the top."""
    at = (np.arange(SIDE) - (SIDE - 1) / 2) * MM
    affine = np.diag([MM, MM, MM, 1.0])
    affine[:3, 3] = at[0]
    return nibabel.Nifti1Image(head(*np.meshgrid(at, at, at, indexing="ij")).astype(np.int16), affine)


def save(image: Any, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, file)
    return file


def opened(folder: Path, **settings: Any) -> NiftiFolder:
    return open_nifti_folder(
        DataConfig.model_validate({"source": str(folder), "format": "nifti", "image_size": SIDE} | settings)
    )


def slices_of(source: NiftiFolder) -> dict[str, Slice]:
    taken = {}
    for name in source.scan()[0]:
        try:
            taken[name] = source.read(name)
        except SliceLeftOut:
            continue
    return taken


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_slice_shows_the_head_as_radiologists_see_it(tmp_path: Path, plane: str) -> None:
    """Right is left, front or top is up; of sagittal slices front is left. The oracle knows world coordinates only."""
    save(phantom(), tmp_path / "head.nii.gz")
    source = opened(tmp_path, plane=plane, intensity=[0, 1000])
    taken = slices_of(source)
    assert len(taken) > 10
    down = -(np.arange(SIDE)[:, None] - (SIDE - 1) / 2) * MM + np.zeros((1, SIDE))
    across = -(np.arange(SIDE)[None, :] - (SIDE - 1) / 2) * MM + np.zeros((SIDE, 1))
    for image, _, _, geometry in taken.values():
        assert geometry is not None
        at = np.full_like(down, geometry.position_mm)
        signal = {
            "axial": lambda at=at: head(across, down, at),
            "coronal": lambda at=at: head(across, at, down),
            "sagittal": lambda at=at: head(at, across, down),
        }[plane]()
        np.testing.assert_allclose(image.astype(float), np.floor(signal).clip(0, 1000) * 0.255, atol=1)
        assert (geometry.plane, geometry.spacing_mm) == (plane, (MM, MM, MM))


def test_48_orientations_of_a_head_give_the_same_slices(tmp_path: Path) -> None:
    image = phantom()
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product([1, -1], repeat=3):
            turned = image.as_reoriented(np.array(list(zip(axes, flips, strict=True))))
            save(turned, tmp_path / f"{axes}{flips}.nii")
    seen = {"".join(nibabel.aff2axcodes(nibabel.load(file).affine)) for file in tmp_path.iterdir()}
    assert len(seen) == 48
    by_file: dict[str, dict[str, Slice]] = {}
    for name, taken in slices_of(opened(tmp_path)).items():
        file, _, number = name.partition("//")
        by_file.setdefault(file, {})[number] = taken
    first, *others = by_file.values()
    assert (len(by_file), len(first) > 10) == (48, True)
    for other in others:
        assert other.keys() == first.keys()
        for number, taken in other.items():
            assert np.array_equal(taken.image, first[number].image)
            assert taken[1:] == first[number][1:]


def test_voxels_of_any_shape_keep_true_proportions(tmp_path: Path) -> None:
    """A ball is round whatever the voxels: its extent in mm along rows and columns is its diameter."""
    spacing = np.array([1.0, 2.0, 5.0])
    shape = np.array([96, 48, 24])
    at = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    ball = sum(axis**2 for axis in np.meshgrid(*at, indexing="ij")) < 36**2
    save(nibabel.Nifti1Image(ball.astype(np.float32), np.diag([*spacing, 1.0])), tmp_path / "ball.nii.gz")
    for plane, width_mm, height_mm in (("axial", 96, 96), ("coronal", 96, 120), ("sagittal", 96, 120)):
        taken = slices_of(opened(tmp_path, plane=plane, image_size=120))
        image = max((taken.image for taken in taken.values()), key=lambda image: int(image.sum()))
        pixel_mm = max(width_mm, height_mm) / 120
        for side in (0, 1):
            assert (image > 127).any(axis=side).sum() * pixel_mm == pytest.approx(72, abs=5)  # a voxel of 5 mm


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_types_of_numbers_and_scales_give_the_same_slices(tmp_path: Path, dtype: str) -> None:
    values = phantom().get_fdata()
    scaled = nibabel.Nifti1Image(values / 7 - 30, phantom().affine)
    scaled.set_data_dtype(np.int16)  # nibabel finds a slope and an intercept
    save(scaled, tmp_path / "scaled.nii.gz")
    save(nibabel.Nifti1Image((values / 4).astype(dtype), phantom().affine), tmp_path / "plain.nii")
    assert nibabel.load(tmp_path / "scaled.nii.gz").dataobj.slope != 1
    taken = slices_of(opened(tmp_path))
    plain = {name: taken for name, taken in taken.items() if name.startswith("plain")}
    assert len(plain) * 2 == len(taken)
    for name, one in plain.items():
        other = taken[name.replace("plain.nii", "scaled.nii.gz")]
        assert np.abs(one.image.astype(int) - other.image).max() <= 2  # values / 4 are whole numbers of at most 175
    assert max(one.image.max() for one in plain.values()) == 255


def test_what_is_not_a_number_is_black(tmp_path: Path) -> None:
    values = phantom().get_fdata(dtype=np.float32)
    clean = save(nibabel.Nifti1Image(values, phantom().affine), tmp_path / "clean.nii.gz")
    values = values.copy()
    values[:3] = np.nan  # the head begins at the third
    values[-3:] = np.inf
    save(nibabel.Nifti1Image(values, phantom().affine), tmp_path / "holes.nii.gz")
    taken = slices_of(opened(tmp_path, intensity=[0, 800]))
    cut = [(one.image, taken[name.replace("clean", "holes")].image) for name, one in taken.items() if name[0] == "c"]
    assert clean.exists()
    assert len(cut) > 10
    for whole, holed in cut:
        assert not holed[:, :3].any()
        assert not holed[:, -3:].any()
        assert np.array_equal(holed[:, 3:-3], whole[:, 3:-3])
    assert any(whole[:, 2].any() for whole, _ in cut)


def test_slices_of_a_volume_share_one_scale_and_a_hot_voxel_changes_nothing(tmp_path: Path) -> None:
    values = phantom().get_fdata().astype(np.int16)
    save(nibabel.Nifti1Image(values, phantom().affine), tmp_path / "a.nii")
    hot = values.copy()
    hot[12, 12, 12] = 32000
    save(nibabel.Nifti1Image(hot, phantom().affine), tmp_path / "b.nii")
    black = float(np.percentile(values, 0.5, method="higher"))
    white = float(np.percentile(values[values > values.mean()], 99.5, method="lower"))
    taken = slices_of(opened(tmp_path))
    for name, one in taken.items():
        if name.startswith("a"):
            picture = values[::-1, ::-1, int(name.rpartition("//")[2])].T
            grey = ((picture - black) * 255 / (white - black)).clip(0, 255)
            assert np.abs(one.image - grey).max() <= 0.51
            difference = np.abs(one.image.astype(int) - taken[name.replace("a.nii", "b.nii")].image)
            assert np.sort(difference.ravel())[-2] <= 1


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "int32", "float32"])
def test_percentiles_by_counting_are_those_by_sorting(dtype: str) -> None:
    random = np.random.default_rng(0)
    for size in (2, 7, 1000, 100_000):
        voxels = random.normal(20, 30, size).clip(-120 if dtype in ("int8", "int16") else 0, 120).astype(dtype)
        above = float(voxels.mean())
        assert percentiles(voxels, above, voxels.min(), voxels.max()) == (
            np.percentile(voxels, 0.5, method="higher"),
            np.percentile(voxels[voxels > above], 99.5, method="lower"),
        )


def test_which_slices_are_taken(tmp_path: Path) -> None:
    save(phantom(), tmp_path / "head.nii.gz")

    def positions(**slices: Any) -> list[float]:
        return [one.geometry.position_mm for one in slices_of(opened(tmp_path, slices=slices)).values() if one.geometry]

    every = positions(min_foreground=0)
    assert every == [MM * (i - (SIDE - 1) / 2) for i in range(SIDE)]
    filled = [position for position in every if head(*np.meshgrid(*[every] * 2, position)).mean() > 0]
    assert set(positions()) < set(filled)  # those at the rim of the head hold too little of it
    assert positions(min_foreground=0, step_mm=6) == every[::3]
    assert positions(min_foreground=0, step_mm=5) == [every[i] for i in (0, 2, 5, 7, 10, 12, 15, 17, 20, 22)]
    assert positions(min_foreground=0, range_mm=[-10, 4]) == [p for p in every if -10 <= p <= 4]
    upper = positions(min_foreground=0, range=[0.5, 1])
    assert upper == [p for p in filled if p > 0]


def test_a_dataset_counts_the_slices_that_are_left_out(tmp_path: Path) -> None:
    for i in range(3):
        save(phantom(), tmp_path / "scans" / f"sub-{i}" / f"sub-{i}_T1w.nii.gz")
    data = DataConfig(
        source=str(tmp_path / "scans"), path=str(tmp_path / "d"), image_size=SIDE, format="nifti", splits=(1, 0, 0)
    )
    dataset = prepare_dataset(data, serial)
    (reason, left_out), *others = dataset.manifest.not_taken.other.items()
    assert (reason, others) == ("slices below data.slices.min_foreground", [])
    assert left_out + dataset.manifest.num == 3 * SIDE
    assert any(
        f"not taken: {left_out} slices below data.slices.min_foreground" in line for line in remarks(dataset.manifest)
    )
    with pytest.raises(DataError, match=r"data\.slices: leaves none of 72 slices in .*min_foreground"):
        prepare_dataset(
            data.model_copy(update={"path": str(tmp_path / "e"), "slices": SlicesConfig(min_foreground=1)}), serial
        )


def test_volumes_of_a_4d_file(tmp_path: Path) -> None:
    values = phantom().get_fdata().astype(np.int16)
    save(
        nibabel.Nifti1Image(np.stack([values, values // 2, values[::-1]], axis=-1), phantom().affine),
        tmp_path / "4d.nii.gz",
    )
    save(phantom(), tmp_path / "3d.nii.gz")
    first, last = opened(tmp_path), opened(tmp_path, volumes=2)
    assert first.not_taken().other == {"further volumes of 4D files (data.volumes)": 2}
    taken, everything, flipped = (
        slices_of(first),
        slices_of(opened(tmp_path, volumes="all")),
        slices_of(opened(tmp_path, volumes=2, include=["4*"])),
    )
    for name, one in taken.items():
        if name.startswith("4d"):
            number = name.partition("//")[2]
            assert np.array_equal(one.image, taken[f"3d.nii.gz//{number}"].image)
            assert np.array_equal(one.image, everything[f"4d.nii.gz//0000//{number}"].image)
            half = everything[f"4d.nii.gz//0001//{number}"]  # a volume of its own scale
            assert np.abs(half.image.astype(int) - one.image).max() <= 1
            assert half.pixels_sha256 != one.pixels_sha256
            assert np.array_equal(one.image[:, ::-1], flipped[name].image)
    assert {first.volume(name) for name in everything} == {"3d.nii.gz", "4d.nii.gz"}
    with pytest.raises(UnusableFile, match=r"has 1 volumes, and data\.volumes asks for number 2"):
        last.read("3d.nii.gz")


def bids(folder: Path, num: int = 10) -> Path:
    lines = ["participant_id\tdiagnosis\tname"]
    for i in range(num):
        values = phantom().get_fdata() + np.random.default_rng(i).normal(0, 60, (SIDE,) * 3)
        image = nibabel.Nifti1Image(values.astype(np.int16), phantom().affine)
        for session, sequence in itertools.product(("ses-1", "ses-2"), ("T1w", "FLAIR")):
            save(image, folder / f"sub-{i:02d}" / session / "anat" / f"sub-{i:02d}_{session}_{sequence}.nii.gz")
        lines.append(f"sub-{i:02d}\t{('glioma', 'healthy', 'n/a')[i % 3]}\tMUELLER")
    save(phantom(), folder / "derivatives" / "sub-00_T1w.nii.gz")
    save(phantom(), folder / "sub-00" / "anat" / "sub-00_dseg.nii.gz")
    (folder / "participants.tsv").write_text("\n".join(lines))
    (folder / "README").write_text("about")
    return folder


def test_a_bids_folder(tmp_path: Path) -> None:
    source = opened(bids(tmp_path / "scans"))
    assert source.not_taken().other == {
        "files in derivatives, sourcedata and the like": 1, "files that are no NIfTI": 2, "masks and segmentations": 1,
    }  # fmt: skip
    name = "sub-03/ses-2/anat/sub-03_ses-2_FLAIR.nii.gz//0012"
    assert name in source.scan()[0]
    assert (source.label(name), source.subject_id(name)) == ("FLAIR", "sub-03")
    by_diagnosis = opened(tmp_path / "scans", label="diagnosis")
    assert [by_diagnosis.label(name.replace("03", f"{i:02d}")) for i in range(3)] == ["glioma", "healthy", "unlabelled"]
    with pytest.raises(DataError, match=r"data\.label: age: must be 'sequence' or a column .*\(diagnosis, name\)"):
        opened(tmp_path / "scans", label="age")
    data = DataConfig(
        source=str(tmp_path / "scans"), path=str(tmp_path / "d"), image_size=SIDE, format="nifti",
        slices=SlicesConfig(step_mm=8), splits=(0.6, 0.2, 0.2),
    )  # fmt: skip
    check_source(data)
    dataset = prepare_dataset(data, serial)
    (classes,) = describe_classes({"FLAIR": 2, "T1w": 2}, of_volumes=True)
    assert "data.label says" in classes
    assert open_dataset(dataset.path) == prepare_dataset(data, None) == dataset
    assert dataset.label_names == ("FLAIR", "T1w")
    subjects = {}
    for split in SPLITS:
        assert len(dataset.images(split))  # whose hash covers the columns of volumes
        columns = dataset.scan_columns(split)
        assert [dataset.label_names[i] for i in dataset.labels(split)] == [column.sequence for column in columns]
        for column, kept in zip(columns, dataset.sources(split), strict=True):
            assert kept.startswith(f"{column.volume}//")
            assert (column.plane, column.spacing_mm) == ("axial", [MM] * 3)
            assert column.position_mm == MM * (int(kept.rpartition("//")[2]) - (SIDE - 1) / 2)
        subjects[split] = {kept.partition("/")[0] for kept in dataset.sources(split)}
    assert [len(of) for of in subjects.values()] == [6, 2, 2]
    assert len(set.union(*subjects.values())) == 10


def test_flat_folders_have_the_subjects_of_a_pattern_or_say_that_leakage_cannot_be_excluded(tmp_path: Path) -> None:
    for i in range(6):
        values = phantom().get_fdata() + np.random.default_rng(i).normal(0, 60, (SIDE,) * 3)
        save(
            nibabel.Nifti1Image(values.astype(np.int16), phantom().affine), tmp_path / "scans" / f"P{i // 2}-t1-{i}.nii"
        )
    places = {"source": str(tmp_path / "scans"), "format": "nifti", "image_size": SIDE}
    data = DataConfig.model_validate(places | {"path": str(tmp_path / "a"), "subject_pattern": "(P[0-9])"})
    known = prepare_dataset(data, serial)
    assert known.manifest.duplicates.groups == 3
    assert known.label_names == ("T1",)
    unknown = prepare_dataset(DataConfig.model_validate(places | {"path": str(tmp_path / "b")}), serial)
    assert unknown.manifest.duplicates.groups == 6
    said = [line for line in remarks(unknown.manifest) if "leakage cannot be excluded" in line]
    assert [line[:33] for line in said] == ["no subject is known of 6 files (d"]
    assert not any("leakage" in line for line in remarks(known.manifest))
    assert any("can show faces" in line for line in remarks(known.manifest))
    simulated = known.manifest.model_copy(update={"simulated": True})
    assert not any("can show faces" in line for line in remarks(simulated))


@pytest.mark.parametrize(
    ("file", "sequence"),
    [
        ("sub-1/anat/sub-1_T1w.nii.gz", "T1w"),
        ("BraTS-GLI-00000-000-t2f.nii.gz", "T2f"),
        ("x/FLAIR.nii", "FLAIR"),
        ("T1w/sub-1_Mueller.nii.gz", None),
    ],
)
def test_only_known_sequences_are_kept_of_a_name(file: str, sequence: str | None) -> None:
    assert sequence_of(file) == sequence


def _damaged(folder: Path) -> dict[str, str]:
    """Files that are no volumes, and what is said of each."""
    folder.mkdir()
    whole = save(phantom(), folder / "whole.nii").read_bytes()
    affine = phantom().affine
    contents = {
        "empty.nii": (b"", "empty file"),
        "empty.nii.gz": (b"", "empty file"),
        "text.nii": (b"no volume" * 100, "not a NIfTI file"),
        "text.nii.gz": (b"no volume" * 100, "truncated|not a NIfTI"),
        "cut.nii": (whole[:-100], "truncated: its header promises more"),
        "header.nii": (whole[:200], "not a NIfTI file|truncated"),
        "cut.nii.gz": (gzip.compress(whole)[:1000], "damaged or truncated"),
        "short.nii.gz": (gzip.compress(whole[:-5000]), "damaged or truncated"),
        "unpacked.nii.gz": (whole, "truncated|not a NIfTI"),
    }
    expected = {name: reason for name, (_, reason) in contents.items()}
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    with zipfile.ZipFile(folder / "zip.nii.gz", "w") as archive:
        archive.writestr("a.nii", whole)
    lies = bytearray(whole)
    lies[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()  # dim[1..3]
    (folder / "bomb.nii").write_bytes(lies)
    lies[42:48] = np.array([800, 800, 800], "<i2").tobytes()
    (folder / "bomb.nii.gz").write_bytes(gzip.compress(bytes(lies)))
    lost = affine.copy()
    lost[0] = 0
    others = {
        "complex.nii": nibabel.Nifti1Image(np.ones((4, 4, 4), np.complex64), affine),
        "colour.nii": nibabel.Nifti1Image(np.zeros((4, 4, 4), [(c, "u1") for c in "RGB"]), affine),
        "nan.nii.gz": nibabel.Nifti1Image(np.full((4, 4, 4), np.nan, np.float32), affine),
        "5d.nii.gz": nibabel.Nifti1Image(np.ones((4, 4, 4, 2, 3), np.int16), affine),
    }
    for name, image in others.items():
        save(image, folder / name)
    (folder / "loop.nii").symlink_to("loop.nii")
    (folder / "loop").symlink_to("loop")
    flat = nibabel.Nifti1Image(np.ones((4, 4, 4), np.int16), None)
    flat.header.set_sform(lost, code=1)
    flat.header.set_qform(None, code=0)
    (folder / "lost.nii").write_bytes(flat.header.binaryblock + b"\0" * 4 + bytes(128))
    return expected | {
        "zip.nii.gz": "truncated|not a NIfTI",
        "bomb.nii": r"30000 x 30000 x 30000 voxels: more than",
        "bomb.nii.gz": "truncated: its header promises more",
        "complex.nii": "complex64 are no intensities",
        "colour.nii": "colour are no intensities",
        "nan.nii.gz": "no finite values",
        "5d.nii.gz": "two, three or four dimensions, got 4 x 4 x 4 x 2 x 3",
        "lost.nii": "no usable orientation",
        "loop.nii": "unreadable: Too many levels",
        "loop": "unreadable: Too many levels",
    }


def test_damaged_files_are_listed_with_the_reason_and_without_their_names(tmp_path: Path) -> None:
    import re

    expected = _damaged(tmp_path / "scans")
    source = opened(tmp_path / "scans")
    reasons: dict[str, str] = {}
    for name in source.scan()[0]:
        try:
            source.read(name)
        except UnusableFile as error:
            reasons[name.partition("//")[0]] = str(error)
        except SliceLeftOut:
            continue
    assert reasons.keys() == expected.keys()
    for name, reason in reasons.items():
        assert re.search(expected[name], reason), (name, reason)
        assert ".nii" not in reason
    data = DataConfig(source=str(tmp_path / "scans"), path=str(tmp_path / "d"), format="nifti", max_rejected_fraction=1)
    for settings in ({}, {"max_rejected_fraction": 0.9}):
        with pytest.raises(DataError, match=r"splits|19 of 20 files cannot be used"):
            prepare_dataset(data.model_copy(update=settings), serial)
    dataset = prepare_dataset(data.model_copy(update={"splits": (1, 0, 0)}), serial)
    assert sorted(file.reason for file in dataset.manifest.rejected) == sorted(reasons.values())


def test_what_does_not_fit_is_refused_with_a_remedy(tmp_path: Path) -> None:
    save(phantom(), tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match=r"holds NIfTI volumes and no images; set data\.format=nifti"):
        check_source(DataConfig(source=str(tmp_path)))
    places = (f"data.source={tmp_path}", "data.format=nifti")
    for overrides, message in (
        (
            (places[0], "data.plane=coronal"),
            r"data\.plane: applies to volumes, got 'coronal'; set data\.format=nifti",
        ),
        ((*places, "data.pages=all"), r"data\.pages: applies to image files"),
        ((*places, "data.slices.range=[0.5,0.5]"), r"data\.slices\.range: of a range .* low must be below high"),
        ((*places, "data.label=participant_id"), r"data\.label: must be a class, not who"),
        ((*places, "data.keep_subject_ids=public"), r"data\.keep_subject_ids: must say why"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_job("prepare", list(overrides))
    (tmp_path / "a.nii.gz").rename(tmp_path / "a.mgz")
    with pytest.raises(DataError, match=r"holds no nifti volumes .* give a folder of \.nii"):
        check_source(DataConfig(source=str(tmp_path), format="nifti"))
    assert open_source(DataConfig(source=str(tmp_path), format="nifti")).not_taken().other == {
        "files that are no NIfTI": 1
    }


def test_real_files_of_nibabel_and_nilearn_are_read(tmp_path: Path) -> None:
    """Functional and anatomical scans of small sizes that ship with nibabel, and the ICBM 152 template of nilearn."""
    files = [Path(nibabel.__file__).parent / "tests" / "data" / name for name in ("anatomical.nii", "example4d.nii.gz")]
    for file in files:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save(load_mni152_template(resolution=4), tmp_path / "template_T1.nii.gz")
    taken = slices_of(opened(tmp_path, image_size=64))
    by_file = {name.partition("//")[0] for name in taken}
    assert by_file == {"anatomical.nii", "example4d.nii.gz", "template_T1.nii.gz"}
    for name, one in taken.items():
        assert one.geometry is not None
        if name.startswith("template"):
            assert one.geometry.sequence == "T1"
            assert one.geometry.spacing_mm == (4, 4, 4)
            halves = one.image[:, :32].astype(float), one.image[:, :31:-1].astype(float)
            assert np.corrcoef(halves[0].ravel(), halves[1].ravel())[0, 1] > 0.9  # a head is symmetric
    eyes_up = max((one for name, one in taken.items() if name.startswith("template")), key=lambda one: one.image.sum())
    rows = np.flatnonzero(eyes_up.image.any(axis=1))
    widths = [(eyes_up.image[row] > 20).sum() for row in (rows[len(rows) // 4], rows[3 * len(rows) // 4])]
    assert widths[0] < widths[1]  # brains are wider behind, which is below


def test_generated_slices_are_refused_or_taken_as_synthetic(tmp_path: Path) -> None:
    save(phantom(), tmp_path / "0.nii.gz")
    (tmp_path / "samples.json").write_text('{"synthetic": true}')
    with pytest.raises(DataError, match=r"generated by a model.*data\.synthetic=true"):
        opened(tmp_path).scan()
    assert opened(tmp_path, synthetic=True).scan()[0]
    assert opened(tmp_path, exclude=["0.nii.gz"]).scan()[0] == []
