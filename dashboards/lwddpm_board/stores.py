"""Where the board reads: one MLflow store and one Optuna storage. Nothing is kept here but caches."""

import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from lwddpm.addresses import public
from lwddpm.config import TrackingConfig
from lwddpm.errors import ConfigError, LwddpmError
from lwddpm.tracking.store import check_tracking, connect

_CACHED_FILES, _CACHED_BYTES = 256, 2 << 20


class Unreachable(LwddpmError):  # noqa: N818
    """The tracking store does not answer; it may later."""


class NothingYet(LwddpmError):  # noqa: N818
    """There is no store yet: nothing has been run here."""


class Missing(LwddpmError):  # noqa: N818
    """What was asked for by its name is not there."""


class Stores:
    """The two stores, connected when first needed, so that the board starts before they do.

    Attributes:
        tracking: absolute MLflow tracking URI.
        storage: Optuna storage URL.
        datasets: further dataset folders to show, besides those that runs name.
        workspace: a folder that lives as long as the board.
    """

    def __init__(self, tracking: str, storage: str, datasets: Sequence[str], workspace: Path) -> None:
        self.tracking, self.storage, self.datasets, self.workspace = tracking, storage, tuple(datasets), workspace
        self._client: MlflowClient | None = None
        self._connecting = threading.Lock()
        self._small_file = lru_cache(_CACHED_FILES)(self._download)

    @property
    def client(self) -> MlflowClient:
        """The connected MLflow client.

        Raises:
            NothingYet: the SQLite file does not exist; looking must not create it.
            Unreachable: the store does not answer.
        """
        with self._connecting:
            if self._client is None:
                prefix = "sqlite:///"
                if self.tracking.startswith(prefix) and not Path(self.tracking.removeprefix(prefix)).exists():
                    raise NothingYet(f"there is no {self.tracking.removeprefix(prefix)} yet")
                try:
                    self._client = connect(check_tracking(TrackingConfig(uri=self.tracking)))
                except ConfigError as error:
                    raise Unreachable(str(error).removeprefix("tracking.uri: ")) from None
            return self._client

    @property
    def place(self) -> str:
        """The tracking store as people may read it."""
        return public(self.tracking)

    def listing(self, run_id: str, folder: str = "") -> list[FileInfo]:
        """What MLflow lists in a folder of a run's artifacts; empty where there is no such folder."""
        files: list[FileInfo] = self.client.list_artifacts(run_id, folder or None)
        return files

    def file(self, run_id: str, path: str) -> bytes:
        """Content of an artifact that MLflow itself lists under exactly this path.

        Raises:
            Missing: it lists no such file.
        """
        parts = path.split("/")
        if any(part in ("", ".", "..") or not part.isprintable() or "\\" in part for part in parts):
            raise Missing("no such file")
        try:
            listed = {file.path: file for file in self.listing(run_id, "/".join(parts[:-1])) if not file.is_dir}
        except MlflowException:
            listed = {}
        if path not in listed:
            raise Missing(f"this run has no {path}")
        size = listed[path].file_size or 0
        # a file may be written again while its run goes on: its size tells most of such changes
        return self._small_file(run_id, path, size) if size <= _CACHED_BYTES else self._download(run_id, path, size)

    def text(self, run_id: str, path: str) -> str | None:
        """A text artifact, or None where the run has none of that name."""
        try:
            return self.file(run_id, path).decode("utf-8", "replace")
        except Missing:
            return None

    def _download(self, run_id: str, path: str, size: int) -> bytes:
        with self.folder() as target:
            return Path(self.client.download_artifacts(run_id, path, str(target))).read_bytes()

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder for the length of a block."""
        with tempfile.TemporaryDirectory(dir=self.workspace) as name:
            yield Path(name)
