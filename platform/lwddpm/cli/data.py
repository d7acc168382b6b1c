"""`lwddpm data`: what lies in a folder, before a job takes it."""

from typing import Annotated, Any

import typer

from lwddpm.cli.app import JsonFlag, app, finish
from lwddpm.cli.views import data as views

data = typer.Typer(no_args_is_help=True, help="Look at folders of scans.")
app.add_typer(data, name="data")


@data.command()
def inspect(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A folder of DICOM, NIfTI or images, or a DICOMDIR.")],
    as_json: JsonFlag = False,
) -> None:
    """Say what is in a folder: series, sequences, planes, sizes, subjects, and what would be refused and why.

    Reads headers only, on all CPUs, and decides as preparation does. Nothing of it names a person: subjects and files
    are shown as the hashes that a prepared dataset has. Kinds of files may be mixed; a job takes those of its
    data.format. What headers do not tell, such as a damaged picture, comes out when a job reads them.

        lwddpm data inspect DICOM_FOLDER

        lwddpm data inspect BIDS_FOLDER --json

        lwddpm run jobs/prepare_dicom.yaml --set data.source=DICOM_FOLDER

    Exit codes: 0 if something there can be prepared, 1 if nothing can, 2 if PATH is no folder that can be listed.
    """

    def verb() -> dict[str, Any]:
        from lwddpm.data.inspection import inspect_folder

        return inspect_folder(path)

    if not finish(verb, as_json, views.inspected)["kinds"]:
        raise typer.Exit(1)
