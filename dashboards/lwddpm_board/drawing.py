"""Drawings: slices that visitors ask for, drawn in a process of their own, one drawing at a time."""

import json
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lwddpm import families
from lwddpm.conditions import Value
from lwddpm.config import SamplingConfig
from lwddpm.diffusion.editing import Inpainting, Variation
from lwddpm.diffusion.timesteps import network_calls
from lwddpm.errors import DataError, LwddpmError
from lwddpm.kinds.edits import Planned
from lwddpm.kinds.presets import presets_of
from lwddpm.kinds.saved_model import asked_of, mark_of
from lwddpm.marks.mark import Mark
from lwddpm.tracking.registry import RegisteredVersion
from lwddpm.training.stored_model import read_saved_model
from lwddpm.training.stored_prior import read_prior
from lwddpm_board.dataset import open_known
from lwddpm_board.drawing_request import AWAY_FROM, DrawingRequest, settings_of
from lwddpm_board.stores import Missing, Stores

_KEPT = 8


@dataclass
class Drawing:
    """One request and how far it is.

    Attributes:
        calls: of a network, for each slice.
        mark: of the first image, without what it was asked for.
        asked: what each image is asked to show, by condition; None of a model without conditions.
        nearest: for each image its nearest training slice; None where they are not at hand.
        note: why there is no nearest slice, or why the drawing failed.
    """

    id: str
    wanted: DrawingRequest
    sampling: SamplingConfig
    calls: int
    version: RegisteredVersion
    folder: Path
    mark: Mark
    asked: list[dict[str, Value] | None]
    state: Literal["running", "done", "failed", "cancelled"] = "running"
    stage: str = "starting"
    done: int = 0
    total: int = 0
    note: str = ""
    nearest: list[dict[str, Any]] | None = None
    began: float = field(default_factory=time.monotonic)
    seconds: float | None = None

    def as_dict(self) -> dict[str, Any]:
        seconds = time.monotonic() - self.began if self.seconds is None else self.seconds
        return {
            "id": self.id,
            "model": {"name": self.version.name, "version": self.version.version},
            "dataset": self.version.tags.get("lwddpm.dataset_version", ""),
            "how": self.how,
            "state": self.state,
            "stage": self.stage,
            "done": self.done,
            "total": self.total,
            "note": self.note,
            "nearest": self.nearest,
            "asked": self.asked if self.state == "done" and self.asked[0] is not None else None,
            "seconds": round(seconds, 1),
        }

    @property
    def how(self) -> str:
        """How the slices are drawn, in words."""
        steps = self.sampling.num_inference_steps
        if self.sampling.sampler == families.SAMPLER:
            cut = f", truncation {self.sampling.truncation:g}" if self.sampling.truncation is not None else ""
            return f"one pass of the generator{cut}, seed {self.sampling.seed}"
        words = f"{self.sampling.sampler}, {steps} step{'' if steps == 1 else 's'}"
        if self.sampling.guidance != 1:
            words += f", guidance {self.sampling.guidance:g}"
            if self.sampling.guidance_from != "auto":
                words += f" from {AWAY_FROM[self.sampling.guidance_from]}"
        if self.sampling.condition_guidance != 1:
            words += f", guidance of the conditions {self.sampling.condition_guidance:g}"
        return f"{words}, {self.calls} network call{'' if self.calls == 1 else 's'} a slice, seed {self.sampling.seed}"

    def mark_of(self, index: int) -> Mark:
        """The mark of an image."""
        return self.mark.model_copy(update={"index": index, "conditions": self.asked[index]})

    def images(self) -> np.ndarray:
        """uint8 [count, S, S].

        Raises:
            Missing: it is not finished.
        """
        if self.state != "done":
            raise Missing("this drawing is not finished")
        return self._opened

    @cached_property
    def _opened(self) -> np.ndarray:  # once: each picture of a sheet is a request
        return np.load(self.folder / "images.npy", mmap_mode="r", allow_pickle=False)


class Drawings:
    """The drawings of this board: the newest ones, of which at most one is running."""

    def __init__(self, stores: Stores) -> None:
        self._stores, self._lock = stores, threading.Lock()
        self._all: OrderedDict[str, Drawing] = OrderedDict()
        self._process: subprocess.Popen[str] | None = None

    def start(
        self, version: RegisteredVersion, model_dir: Path, wanted: DrawingRequest, planned: Planned | None = None
    ) -> Drawing:
        """Begin.

        Args:
            planned: what the drawing begins with.

        Raises:
            ConfigError: the model cannot be sampled this way.
            LwddpmError: another drawing is running.
        """
        saved = read_saved_model(model_dir)
        presets = presets_of(f"models:/{version.name}/{version.version}", model_dir)
        sampling = settings_of(wanted, saved, model_dir, presets)
        edit, edited = (planned.edit, planned.edited) if planned is not None else (None, None)
        calls = network_calls(saved.diffusion, sampling, read_prior(model_dir, saved.image_size), edit)
        mark = mark_of(f"models:/{version.name}/{version.version}", model_dir, saved, sampling, wanted.count, edited)
        dataset, note = self._training_images(version, saved.image_size) if wanted.nearest else (None, "")
        with self._lock:
            if any(drawing.state == "running" for drawing in self._all.values()):
                raise LwddpmError("one drawing at a time: wait for the one that is running, or cancel it")
            name = secrets.token_hex(8)
            folder = self._stores.workspace / "drawings" / name
            folder.mkdir(parents=True)
            drawing = Drawing(
                name, wanted, sampling, calls, version, folder, mark,
                asked_of(sampling, saved, range(wanted.count)), note=note, total=wanted.count,
            )  # fmt: skip
            self._all[name] = drawing
            while len(self._all) > _KEPT:
                _, oldest = self._all.popitem(last=False)
                shutil.rmtree(oldest.folder, ignore_errors=True)
        given = folder / "given.npz" if isinstance(edit, Inpainting | Variation) else None
        if isinstance(edit, Inpainting):
            np.savez(folder / "given.npz", source=edit.source.numpy(), mask=edit.mask.numpy())
        elif isinstance(edit, Variation):
            np.savez(folder / "given.npz", source=edit.source.numpy(), noising_steps=edit.noising_steps)
        order = {
            "model_dir": str(model_dir),
            "sampling": sampling.model_dump(),
            "count": wanted.count,
            "dataset": dataset,
            "given": str(given) if given is not None else None,
            "folder": str(folder),
        }
        threading.Thread(target=self._follow, args=(drawing, json.dumps(order)), daemon=True, name="drawing").start()
        return drawing

    def _follow(self, drawing: Drawing, order: str) -> None:
        """Hand the order over, listen to the process, and keep how it ended."""
        process = self._ready_process()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(f"{order}\n")
            process.stdin.flush()
            while drawing.state == "running" and (line := process.stdout.readline()):
                message = json.loads(line)
                if message.get("state") == "done":
                    kept = drawing.folder / "nearest.json"
                    drawing.nearest = json.loads(kept.read_text()) if kept.exists() else None
                for name, value in message.items():
                    setattr(drawing, name, value)
        except OSError:  # it has ended meanwhile
            pass
        if drawing.state == "running":
            drawing.state, drawing.note = "failed", "the process that draws has ended; the reason is in the board's log"
        drawing.seconds = time.monotonic() - drawing.began

    def _ready_process(self) -> "subprocess.Popen[str]":
        """The process that draws, started where none is left."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "lwddpm_board.draw_process"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            return self._process

    def prepare(self) -> None:
        """Start the process: somebody is about to draw."""
        threading.Thread(target=self._ready_process, daemon=True).start()

    def _training_images(self, version: RegisteredVersion, image_size: int) -> tuple[str | None, str]:
        """Path of the dataset that a version was trained on, or why its slices cannot be shown."""
        try:
            dataset = open_known(self._stores, version.tags.get("lwddpm.dataset_version", ""))
        except (DataError, Missing) as error:
            return None, f"Nearest training images are not shown: {error}."
        if dataset.manifest.image_size != image_size:
            return None, f"Nearest training images are not shown: the dataset has {dataset.manifest.image_size} px."
        return dataset.path, ""

    def get(self, name: str) -> Drawing:
        if name not in self._all:
            raise Missing("this drawing is gone: only the newest ones are kept, until the board ends")
        return self._all[name]

    def of_version(self, name: str, number: int) -> list[Drawing]:
        """Finished drawings of a version, newest first."""
        return [
            drawing
            for drawing in reversed(self._all.values())
            if drawing.state == "done" and (drawing.version.name, drawing.version.version) == (name, number)
        ]

    def cancel(self, name: str) -> Drawing:
        drawing = self.get(name)
        if drawing.state == "running":
            drawing.state = "cancelled"
            self.close()
        return drawing

    def close(self) -> None:
        """Leave no process behind."""
        with self._lock:
            if self._process is not None:
                self._process.terminate()
                self._process.wait()
                self._process = None
