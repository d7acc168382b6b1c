"""How every page that is made of a template is set up: reports, audits, dossiers."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def template_environment(folder: Path, *, escape: bool = True) -> Environment:
    """Templates of a folder, which name nothing that is not given; lines that hold only a tag leave none.

    Args:
        escape: as HTML wants it; False for Markdown.
    """
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
