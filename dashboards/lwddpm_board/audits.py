"""Audits that are stored with versions, with the pictures that their runs keep and the marks of these."""

import hashlib
import io
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from lwddpm.audit.page import PICTURES
from lwddpm.audit.result import FILE, AuditResult
from lwddpm.errors import LwddpmError
from lwddpm.kinds.audit.parts import has_classes
from lwddpm.kinds.saved_model import asked_of, mark_of
from lwddpm.marks.mark import Mark
from lwddpm.release import confirmations
from lwddpm.tracking.registry import RegisteredVersion
from lwddpm.training.stored_model import read_saved_model
from lwddpm_board.registry import model_folder
from lwddpm_board.runs import experiments
from lwddpm_board.stores import Missing, Stores

FOLDER = "audit"  # of a run's artifacts
_KEPT = 8
_RUNS = 200


@dataclass(frozen=True)
class Audited:
    """An audit that is stored with a version.

    Attributes:
        sha256: of its file.
        run_id: of the run that made it; empty: that is gone.
        pictures: of the flagged slices, in the order of `result.flagged`, uint8 [N, S, S]; None: not kept.
        marks: one for each flagged pair; None: the model's files are gone.
        classes: whether the model is told classes; None: its files are gone.
    """

    result: AuditResult
    sha256: str
    run_id: str
    pictures: np.ndarray | None
    marks: tuple[Mark, ...] | None
    classes: bool | None

    def picture(self, index: int) -> tuple[np.ndarray, Mark | None]:
        """A flagged slice and its mark.

        Raises:
            Missing: it is not flagged, or no pictures were kept.
        """
        at = next((at for at, pair in enumerate(self.result.flagged) if pair.index == index), None)
        if at is None or self.pictures is None:
            raise Missing(f"no picture of a flagged slice {index} was kept")
        return self.pictures[at], self.marks[at] if self.marks is not None else None


class Audits:
    """The audits that visitors look at, the newest ones: their files are read once."""

    def __init__(self) -> None:
        self._all: OrderedDict[tuple[str, int, str], Audited] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, stores: Stores, version: RegisteredVersion) -> Audited:
        """The audit that is stored with a version now.

        Raises:
            Missing: there is none.
        """
        audit = confirmations.audit_of(version)
        if audit is None:
            raise Missing(
                f"no audit is stored with {version.name} version {version.version}, or one of another version of the "
                f"platform: lwddpm run audit --set model_uri=models:/{version.name}/{version.version} "
                "--set data.source=PATH"
            )
        result, text = audit
        sha256 = hashlib.sha256(text).hexdigest()
        key = (version.name, version.version, sha256)
        found = self._all.get(key)
        if found is None or not found.run_id:
            run_id = _run_of(stores, result)
            folder = _model_files(stores, version)
            classes = None if folder is None else has_classes(read_saved_model(folder))
            marks = None if folder is None else _marks(version, folder, result)
            found = Audited(result, sha256, run_id, _pictures(stores, run_id, result), marks, classes)
        with self._lock:
            self._all[key] = found
            self._all.move_to_end(key)
            while len(self._all) > _KEPT:
                self._all.popitem(last=False)
        return found

    def get(self, stores: Stores, version: RegisteredVersion, sha256: str) -> Audited:
        """The same, if it is still the one with this hash.

        Raises:
            Missing: it was replaced.
        """
        found = self._all.get((version.name, version.version, sha256)) or self.of(stores, version)
        if found.sha256 != sha256:
            raise Missing("this audit has been replaced by another: reload the page")
        return found


def _run_of(stores: Stores, result: AuditResult) -> str:
    """The newest run that has this very audit among its artifacts; empty where there is none."""
    ids = experiments(stores.client)
    runs = stores.client.search_runs(
        ids, "tags.`lwddpm.kind` = 'audit'", max_results=_RUNS, order_by=["attributes.start_time DESC"]
    )
    for run in runs:
        text = stores.text(run.info.run_id, f"{FOLDER}/{FILE}")
        try:
            if text and AuditResult.model_validate_json(text) == result:
                return str(run.info.run_id)
        except ValidationError:  # of another version of the platform
            continue
    return ""


def _pictures(stores: Stores, run_id: str, result: AuditResult) -> np.ndarray | None:
    try:
        content = stores.file(run_id, f"{FOLDER}/{PICTURES}") if run_id else b""
        pictures = np.load(io.BytesIO(content), allow_pickle=False)
    except (Missing, ValueError, EOFError):  # of an earlier version of the platform, or damaged
        return None
    fits = pictures.dtype == np.uint8 and pictures.ndim == 3 and len(pictures) == len(result.flagged)
    return pictures if fits else None


def _model_files(stores: Stores, version: RegisteredVersion) -> Path | None:
    try:
        return model_folder(stores, version)
    except LwddpmError:  # they are gone
        return None


def _marks(version: RegisteredVersion, folder: Path, result: AuditResult) -> tuple[Mark, ...]:
    """By which `lwddpm verify` draws each flagged slice again."""
    drawn = result.record("copied_share")
    saved, numbers = read_saved_model(folder), [pair.index for pair in result.flagged]
    uri, count = f"models:/{version.name}/{version.version}", max([drawn.n if drawn is not None else 1, *numbers])
    first = mark_of(uri, folder, saved, result.sampling, count)
    first = first.model_copy(update={"drawn_at": datetime.fromisoformat(result.date)})
    asked = asked_of(result.sampling, saved, numbers)
    return tuple(
        first.model_copy(update={"index": index, "conditions": values})
        for index, values in zip(numbers, asked, strict=True)
    )
