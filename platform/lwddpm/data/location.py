"""Files and folders on any pyarrow filesystem: local, S3, GCS."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from lwddpm.errors import DataError


class TargetError(OSError):
    """The folder of a dataset refuses what is written there; whatever else fails while one is prepared is not this."""


@contextmanager
def writing_target() -> Iterator[None]:
    """Have an OSError of the block, or of the function that this decorates, known as the target's.

    Raises:
        TargetError: with the message of the OSError.
    """
    try:
        yield
    except OSError as error:
        raise TargetError(str(error)) from error


@dataclass(frozen=True)
class Location:
    """A folder on a pyarrow filesystem."""

    filesystem: fs.FileSystem
    path: str

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def __truediv__(self, name: str) -> "Location":
        return Location(self.filesystem, f"{self.path}/{name}")

    def read_bytes(self) -> bytes | None:
        """The file's content, or None where there is no such file."""
        if self.filesystem.get_file_info(self.path).type != fs.FileType.File:
            return None
        with self.filesystem.open_input_stream(self.path) as stream:
            return bytes(stream.read())

    def write_bytes(self, content: bytes) -> None:
        with self.filesystem.open_output_stream(self.path) as stream:
            stream.write(content)


def locate(path: str) -> Location:
    """Resolve a local path or a URI such as s3://bucket/folder.

    Raises:
        DataError: the URI's scheme is unknown or its server cannot be configured.
    """
    if "://" not in path:
        return Location(fs.LocalFileSystem(), str(Path(path).expanduser().absolute()))
    try:
        filesystem, inner = fs.FileSystem.from_uri(path)
    except (ValueError, OSError, NotImplementedError) as error:
        raise DataError(
            f"data.path: {path}: not a usable filesystem URI ({error}); try a local path or s3://"
        ) from None
    return Location(filesystem, inner.rstrip("/"))
