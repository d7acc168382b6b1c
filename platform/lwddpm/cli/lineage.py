"""`lwddpm lineage`: which datasets, models and samples hold a subject, a file or a picture."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lwddpm.cli.app import JsonFlag, TrackingOption, app, finish
from lwddpm.cli.views import lineage as views


@app.command()
def lineage(
    subject: Annotated[str | None, typer.Option(help="Subject id of the source, or its hash.")] = None,
    file: Annotated[
        str | None, typer.Option(metavar="NAME", help="File of the source: its path below it, or the hash of that.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A picture: slices with the same pixels, or nearly the same.")
    ] = None,
    withdrawn: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A withdrawal list: marks the registered versions that hold an entry."),
    ] = None,
    source: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Folder of the scans, if --file is a path that leads there.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File of the key of subject ids; default LWDDPM_SUBJECT_KEY, else this user's."
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(metavar="PATH", help="A dataset that no run names; may be given several times.")
    ] = None,
    samples: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR", help="Where sample sets lie, at any depth; default: the working folder."),
    ] = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Say which datasets hold somebody's slices, in which split, and which models and samples were made from these.

    Datasets are those that runs of the tracking store name, those in ./datasets and those given with --dataset. Of
    volumes they name subjects and files by keyed hashes: ids are looked up under the same key.

        lwddpm lineage --subject SUB-0412

        lwddpm lineage --file /scans/sub-0412/anat/sub-0412_T1w.nii.gz --source /scans

        lwddpm lineage --image slice.png --json

        lwddpm lineage --withdrawn withdrawn.txt
    """

    def verb() -> dict[str, Any]:
        from lwddpm.data import lookup
        from lwddpm.data.pseudonyms import existing_pseudonyms
        from lwddpm.data.store import Dataset
        from lwddpm.data.withdrawn import read_withdrawals
        from lwddpm.errors import ConfigError

        given = [name for name, value in asked.items() if value is not None]
        if len(given) != 1:
            got = " and ".join(f"--{name}" for name in given) or "none"
            raise ConfigError(f"lineage: give one of {', '.join(f'--{name}' for name in asked)}, got {got}")
        if image is not None and not image.is_file():
            raise ConfigError(f"--image {image}: no such file; give a picture")
        pseudonyms = existing_pseudonyms(key)
        withdrawals = read_withdrawals(withdrawn) if withdrawn is not None else None
        name = _below(file, source)
        _connect(tracking_uri)
        from lwddpm.tracking.lineage import mark_withdrawn, trace

        if withdrawals is not None:
            return {"looked_for": {"withdrawn": withdrawn}} | mark_withdrawn(withdrawals, pseudonyms, dataset or ())

        def find(held_by: Dataset) -> Any:
            if subject is not None:
                return lookup.find_subject(held_by, subject, pseudonyms)
            if name is not None:
                return lookup.find_file(held_by, name, pseudonyms)
            assert image is not None
            return lookup.find_image(held_by, image)

        found = trace(find, dataset or (), samples or (".",))
        drawn = _drawn(image) if image is not None else None
        looked_for = {"looked_for": {given[0]: str(asked[given[0]])}}
        return looked_for | {"key": pseudonyms.key is not None, "mark": drawn} | found

    asked: dict[str, Any] = {"subject": subject, "file": file, "image": image, "withdrawn": withdrawn}
    finish(verb, as_json, views.lineage)


def _below(file: str | None, source: Path | None) -> str | None:
    """The name of a file below the source."""
    if file is None or source is None:
        return file
    root, path = source.expanduser().absolute(), Path(file).expanduser()
    for place in (path.absolute(), root / path):
        if place.is_relative_to(root):
            return place.relative_to(root).as_posix()
    return file


def _drawn(image: Path) -> str | None:
    """What the mark of a picture says, if it is a synthetic one."""
    from lwddpm.errors import DataError
    from lwddpm.marks import files
    from lwddpm.marks.mark import drawn_by

    try:
        mark = files.read(image)[1]
    except DataError:
        return None
    return None if mark is None else drawn_by(mark)


def _connect(tracking_uri: str | None) -> None:
    from lwddpm.config import TrackingConfig
    from lwddpm.tracking.store import check_tracking, connect

    connect(check_tracking(TrackingConfig(uri=tracking_uri)))
