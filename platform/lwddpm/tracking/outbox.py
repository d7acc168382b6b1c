"""What a training reports, kept in its run folder until MLflow has it: an outage stops no training and loses nothing.

    <run folder>/outbox/
        000000000020-1764105600000000000.json    one report, named after its step and the time of writing
        delivered.json                           the last step of every metric that has arrived

Rank 0 writes each report before the checkpoint that follows it; the driver sends it (`tracking.delivery`). So whoever
is killed, the steps up to the checkpoint that a training continues from are in MLflow or here.
"""

import base64
import io
import time
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from lwddpm.errors import JobError
from lwddpm.evaluation.figures import tile
from lwddpm.files import remove_leftovers, write_whole
from lwddpm.marks.mark import NOTICE
from lwddpm.marks.png import with_texts
from lwddpm.tracking.metric_log import MetricLog

WARNING = "lwddpm.warning"  # tag of a run: what makes its result misleading, or what went wrong on the way
_LAST = 10**12 - 1  # stands for the step of a run's end: it is sent after everything else


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Grid(_Stored):
    """Samples as one PNG picture, in base64."""

    step: int
    epoch: float
    png: str

    def pixels(self) -> np.ndarray:
        """uint8 [H, W]."""
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(self.png))))


class OutboxEntry(_Stored):
    """Any of: metrics by step, tags, a sample grid, the status that ends the run."""

    time_ms: int
    metrics: dict[int, dict[str, float]] = {}
    tags: dict[str, str] = {}
    grid: Grid | None = None
    status: str | None = None


class Delivered(_Stored):
    """Steps that MLflow has. A training that goes on from a checkpoint reports some again: those are not sent."""

    run_id: str
    steps: dict[str, int] = {}


class Outbox:
    """Implements the training loop's `Reporter`, in whichever process rank 0 is.

    Args:
        folder: `outbox` within the run folder; numbers are also appended to the run folder's `MetricLog`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = MetricLog(folder.parent)

    def metrics(self, rows: dict[int, dict[str, float]]) -> None:
        self._log.append(rows)
        self._put(min(rows), OutboxEntry(time_ms=_now_ms(), metrics=rows))

    def images(self, step: int, epoch: float, images: np.ndarray) -> None:
        said = f"{NOTICE}; training snapshot, epoch {epoch:g}, step {step}"
        png = with_texts(tile(images), {"Description": said})
        grid = Grid(step=step, epoch=epoch, png=base64.b64encode(png).decode())
        self._put(step, OutboxEntry(time_ms=_now_ms(), grid=grid))

    def checkpoint(self, step: int, path: Path) -> None:
        self._put(step, OutboxEntry(time_ms=_now_ms(), tags={"lwddpm.checkpoint": str(path)}))

    def warning(self, step: int, message: str) -> None:
        self._put(step, OutboxEntry(time_ms=_now_ms(), tags={WARNING: message}))

    def end(self, status: str, tags: dict[str, str]) -> None:
        """Have the run ended, once everything else has been sent."""
        self._put(_LAST, OutboxEntry(time_ms=_now_ms(), tags=tags, status=status))

    def reopen(self) -> None:
        """Forget an end that has not been sent: the run goes on."""
        for path in self.folder.glob(f"{_LAST:012d}-*.json"):
            path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what a killed process had begun to write; only while nobody writes here."""
        remove_leftovers(self.folder)

    def waiting(self) -> list[Path]:
        """Reports not sent yet, in order of their steps."""
        return sorted(self.folder.glob("[0-9]*-*.json"))

    def read(self, path: Path) -> OutboxEntry:
        try:
            return OutboxEntry.model_validate_json(path.read_bytes())
        except OSError as error:
            raise JobError(f"{path}: cannot be read ({error.strerror}); the same command tries again") from None
        except ValidationError as error:
            raise JobError(f"{path}: not a report ({' '.join(str(error).split())}); remove it to go on") from None

    def delivered(self, run_id: str) -> Delivered:
        """What this run has; nothing where the folder belonged to another run before."""
        try:
            delivered = Delivered.model_validate_json((self.folder / "delivered.json").read_bytes())
        except (OSError, ValidationError):
            return Delivered(run_id=run_id)
        return delivered if delivered.run_id == run_id else Delivered(run_id=run_id)

    def save_delivered(self, delivered: Delivered) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / "delivered.json", delivered.model_dump_json())

    def _put(self, step: int, entry: OutboxEntry) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # By step first: after a restart rank 0 may be on a machine whose clock is behind.
        write_whole(self.folder / f"{step:012d}-{time.time_ns():019d}.json", entry.model_dump_json())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
