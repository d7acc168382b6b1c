"""`verify`: whether images are what their marks say. The only proof is to draw them again."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lwddpm.config import EditConfig, RuleBroken, TrackingConfig
from lwddpm.data.edit_source import read_pictures
from lwddpm.errors import ConfigError, DataError, LwddpmError
from lwddpm.evaluation.edit_figures import FIGURE_FILE
from lwddpm.kinds.drawn_again import CONFIRMED, ROUNDED, Drawn, compare_with_model
from lwddpm.marks import files
from lwddpm.marks.mark import Mark, parse
from lwddpm.training.stored_files import sha256_of
from lwddpm.training.stored_guide import GUIDE_FOLDER
from lwddpm.training.stored_model import WEIGHTS_FILE
from lwddpm.training.stored_prior import PRIOR_FILE

NOT_OURS, UNKNOWN, UNREADABLE, TAKES_SOURCE = "not ours", "model not found", "unreadable", "takes its source"
_EXIT_CODES = {CONFIRMED: 0, ROUNDED: 0, UNREADABLE: 2}  # of all else 1
_IN_FOLDERS = (".png", ".dcm", ".nii", ".nii.gz")

Find = Callable[[Mark], tuple[str, Path]]  # the model that drew an image: its name for people, and its folder


def source_of(source: str | None, mask: str | None, *, crop_background: bool = False) -> EditConfig | None:
    """What edited images were made from; None: nothing is given.

    Raises:
        ConfigError: a mask without a source.
        DataError: a file cannot be read, or the mask does not fit.
    """
    if source is None:
        if mask is not None:
            raise ConfigError(f"--mask: belongs to the image that --source names, got {mask} alone; add --source FILE")
        return None
    way = {"variations": source} if mask is None else {"inpaint": source, "mask": mask}
    try:
        config = EditConfig.model_validate(way | {"crop_background": crop_background})
    except RuleBroken as broken:
        raise ConfigError(str(broken)) from None
    read_pictures(config)
    return config


def verify_files(
    paths: Sequence[str], tracking: TrackingConfig, model: str | None = None, source: EditConfig | None = None
) -> list[dict[str, Any]]:
    """Compare images with what the models that their marks name draw.

    Args:
        paths: files, or folders whose images are meant.
        tracking: where the registry is; asked only if an image is marked.
        model: folder of the model, instead of the registry.
        source: what edited images were made from, see `source_of`.

    Returns:
        For each file, in order: `file`, `state`, `message`, `drawn_by`, `pixels_different`, `max_difference`, `mark`,
        `exit_code` (0 confirmed, 1 not, 2 unreadable).

    Raises:
        ConfigError: a folder holds no images, there is no such model folder, or the registry does not answer.
    """
    results, marked = {}, {}
    for path in dict.fromkeys(_files(paths)):
        image = _read(path)
        if isinstance(image, Drawn):
            marked[path] = image
        results[path] = image if isinstance(image, dict) else {}
    by_model: dict[tuple[str, Path], list[str]] = {}
    if marked:
        find = _in_folder(model) if model is not None else _in_registry(tracking)
        for path, image in marked.items():
            if image.mark.edit is not None and image.mark.edit.takes_source and source is None:
                mask = " --mask FILE" if image.mark.edit.mask_sha256 else ""
                message = (
                    f"{image.mark.words()}: it takes the source to prove that, of which the mark has only a hash: "
                    f"--source FILE{mask}"
                )
                results[path] = _result(TAKES_SOURCE, message, mark=image.mark)
                continue
            try:
                by_model.setdefault(find(image.mark), []).append(path)
            except LwddpmError as error:
                results[path] = _result(UNKNOWN, str(error), mark=image.mark)
    for (name, folder), of_model in by_model.items():
        compare_with_model([marked[path] for path in of_model], name, folder, source)
        for path in of_model:
            image = marked[path]
            results[path] = _result(
                image.state,
                image.message + _named_otherwise(image.mark, name),
                mark=image.mark,
                drawn_by=name,
                pixels_different=image.num_different,
                max_difference=image.max_difference,
            )
    return [{"file": path} | result for path, result in results.items()]


def _files(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        if not Path(path).is_dir():
            yield path
            continue
        inside = sorted(
            str(file)
            for file in Path(path).iterdir()
            if file.name.lower().endswith(_IN_FOLDERS) and file.name != FIGURE_FILE
        )
        if not inside:
            raise ConfigError(f"{path}: holds no {', '.join(_IN_FOLDERS)}; name a file, or a folder of images")
        yield from inside


def _read(path: str) -> Drawn | dict[str, Any]:
    """The image and its mark, or what is to be said of a file that has none."""
    try:
        pixels, text = files.read(Path(path))
    except DataError as error:
        return _result(UNREADABLE, str(error))
    if text is None:
        return _result(NOT_OURS, "bears no mark of this platform: none of ours, or its mark has been removed")
    try:
        return Drawn(pixels, parse(text))
    except DataError as error:
        return _result(NOT_OURS, str(error))


def _result(state: str, message: str, mark: Mark | None = None, **found: Any) -> dict[str, Any]:
    unknown = {"drawn_by": None, "pixels_different": None, "max_difference": None}
    shown = mark.model_dump(mode="json") if mark is not None else None
    return {"state": state, "message": message, **unknown, **found, "mark": shown} | {
        "exit_code": _EXIT_CODES.get(state, 1)
    }


def _named_otherwise(mark: Mark, name: str) -> str:
    """A remark where an image was found to be drawn by another version than the one that its mark names."""
    if mark.model_uri == name or not (mark.model_uri.startswith("models:/") and name.startswith("models:/")):
        return ""
    return f"; its mark names {mark.model_uri}, which is not here with these weights"


def _in_folder(folder: str) -> Find:
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise ConfigError(f"--model: must be a folder with a saved model, got {folder}; leave it out for the registry")

    def find(mark: Mark) -> tuple[str, Path]:
        if not _drew(path, mark):
            raise ConfigError(
                f"says that {mark.model_uri} drew it, weights {mark.weights_sha256[:12]}: not those in {folder}"
            )
        return f"the model in {folder}", path

    return find


def _in_registry(tracking: TrackingConfig) -> Find:
    from lwddpm.tracking.store import check_tracking, connect

    store = check_tracking(tracking)
    from lwddpm.tracking import model_files, registry  # MLflow takes seconds

    connect(store)
    known: dict[tuple[str, str | None, str | None, str], tuple[str, Path]] = {}

    def find(mark: Mark) -> tuple[str, Path]:
        key = (mark.weights_sha256, mark.prior_sha256, mark.guide_sha256, mark.model_uri)
        if key in known:
            return known[key]
        for uri in registry.versions_of_weights(mark.weights_sha256, mark.model_uri):
            try:
                folder = model_files.fetch_model(uri)
            except LwddpmError:  # its files are gone; another version may have the same weights
                continue
            if _drew(folder, mark):
                known[key] = uri, folder
                return known[key]
        raise ConfigError(
            f"says that {mark.model_uri} drew it, weights {mark.weights_sha256[:12]}, which is not in this "
            "registry; name its folder with --model, or the registry with --tracking-uri"
        )

    return find


def _drew(folder: Path, mark: Mark) -> bool:
    """Whether a model's files are those that the mark names."""
    wanted = {WEIGHTS_FILE: mark.weights_sha256}
    wanted |= {PRIOR_FILE: mark.prior_sha256} if mark.prior_sha256 else {}
    wanted |= {f"{GUIDE_FOLDER}/{WEIGHTS_FILE}": mark.guide_sha256} if mark.guide_sha256 else {}
    try:
        return all(sha256_of(folder / name) == sha256 for name, sha256 in wanted.items())
    except OSError:
        return False
