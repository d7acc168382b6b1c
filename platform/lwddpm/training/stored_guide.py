"""The guide of a model on disk: a weaker network of the same diffusion process, a model folder within its folder.

`checkpoint.load_guide` reads it; docs/sampling.md says what it is for.
"""

from pathlib import Path

from lwddpm.files import complete_folder, link_or_copy

GUIDE_FOLDER = "guide"
_FILES = ("config.json", "model.safetensors")


def has_guide(model_dir: Path) -> bool:
    """Whether a model can be drawn with guidance."""
    return (model_dir / GUIDE_FOLDER / _FILES[0]).is_file()


def write_guide(model_dir: Path, weaker: Path) -> None:
    """Put a weaker model, such as an earlier snapshot, into a model folder as its guide, in place of one that is there.

    Raises:
        JobError: the disk does not take it.
    """
    with complete_folder(model_dir / GUIDE_FOLDER) as folder:
        for name in _FILES:
            link_or_copy(weaker / name, folder / name)
