"""A comparison's data, made up: no training is needed to draw a report."""

from collections.abc import Callable

import numpy as np
import pytest

from lwddpm.evaluation.result import Unavailable
from lwddpm.jobfile import load_job
from lwddpm.report.data import (
    ComparisonReport,
    Cost,
    Curves,
    Images,
    MeasuredSystem,
    Measurement,
    NoiseHistogram,
    ReportData,
    SampleSize,
    Training,
)

SYSTEMS = ("gan", "wgan", "lsgan", "ddpm", "ddim", "lw_ddpm")
LEVELS = {"gan": 60.0, "wgan": 50.0, "lsgan": 70.0, "ddpm": 30.0, "ddim": 35.0, "lw_ddpm": 29.5}
DENOISING = ("ddpm", "ddim", "lw_ddpm")
LEVELS |= {"ddpm/noise": 65.0, "ddim/noise": 55.0, "lw_ddpm/noise": 40.0, "gaussian": 52.0}
Build = Callable[..., ReportData]


def measurement(group: str, label: str, level: float, seed: int, *, system: str = "lw_ddpm", **more) -> Measurement:
    gan = system in ("gan", "wgan", "lsgan")
    wobble = np.random.default_rng([seed, len(label)]).normal(0, 0.3)
    values = {
        "group": group,
        "label": label,
        "system": system,
        "training_seed": 0,
        "sampling_seed": seed,
        "n": 100,
        "num_reference": 400,
        "sampler": None if gan else "ddpm",
        "inference_steps": None if gan else 50,
        "values": {"fd_lite0": level + wobble, "ssim_nearest": (100 - level + wobble) / 150},
        "floors": {"fd_lite0": 12.0, "ssim_nearest": 0.6},
    }
    return Measurement(**values | more)


def training(label: str, family: str, parameters: int = 360_369) -> Training:
    settings = {"diffusion.prediction_type": "v_prediction", "diffusion.loss": "smooth_l1"}
    return Training(
        label=label,
        family=family,
        seed=0,
        run_id=f"run-{label}",
        digest="0123abcd",
        parameters=parameters,
        steps=300,
        epochs=12.5,
        settings=settings | {"diffusion.beta_schedule": "cosine"},
    )


def _system(name: str) -> MeasuredSystem:
    gan = "gan" in name
    return MeasuredSystem(
        name=name,
        trainings=("ddpm" if name == "ddim" else name,),
        timesteps=None if gan else 1000,
        sampler=None if gan else "ddim" if name == "ddim" else "ddpm",
        inference_steps=None if gan else 50,
        start=None if gan else "gaussian",
        network_calls=1 if gan else 40,
    )


def _diversity(measured: Measurement) -> dict[str, dict]:
    """Further values, floors and parts of a measurement; those of the kernel distance fall with its distance."""
    if measured.group not in ("system", "start", "baseline"):
        return {}
    distance = measured.values["fd_lite0"]
    values = {"kd_lite0": distance / 100, "precision_lite0": 0.6, "recall_lite0": 0.25, "out_of_band": 0.125}
    return {
        "values": measured.values | values | {"coverage_lite0": 1 - distance / 100},
        "floors": measured.floors | dict.fromkeys((*values, "coverage_lite0"), 0.03),
        "parts": {
            "coverage_lite0": {"glioma_tumor": 0.5, "no_tumor": 0.25},
            "out_of_band": {"too dark": 0.0, "too bright": 0.125},
        },
    }


@pytest.fixture
def measured() -> Callable[..., Measurement]:
    """Builds one measurement: group, label, level, sampling seed; `system` and fields."""
    return measurement


@pytest.fixture
def trained() -> Callable[..., Training]:
    """Builds one training: label, family, number of parameters."""
    return training


@pytest.fixture
def build() -> Build:
    """Builds a whole comparison; `levels` are the rows' distances, `changes` replace fields of the report.

    With several trainings each is sampled once, else the one training `seeds` times. `baseline`: with what earlier
    versions did not measure.
    """

    def make(
        levels: dict[str, float] | None = None,
        seeds: int = 3,
        num_trainings: int = 1,
        baseline: bool = True,
        **changes,
    ) -> ReportData:
        random = np.random.default_rng(0)
        levels = LEVELS | (levels or {})
        repeats = [(i, 0) for i in range(seeds)] if num_trainings == 1 else [(i, i) for i in range(num_trainings)]
        rows = [measurement("system", s, levels[s], i, system=s, training_seed=t) for s in SYSTEMS for i, t in repeats]
        for name, labels, systems in (
            ("loss", ("smooth_l1", "l1", "l2"), ("lw_ddpm",)),
            ("attention", ("se", "linear", "none"), ("lw_ddpm",)),
            ("schedule", ("cosine", "linear"), ("ddpm", "lw_ddpm")),
        ):
            for system in systems:
                rows += [
                    measurement(name, label, 30 + 5 * index, i, system=system, training_seed=t)
                    for index, label in enumerate(labels)
                    for i, t in repeats
                ]
        rows += [measurement("steps", s, 40 - x, 0, x=x) for s in ("ddpm", "ddim") for x in (5, 10, 20)]
        rows += [measurement("epochs", s, levels[s] + 20 - x, 0, system=s, x=x) for s in SYSTEMS for x in (5.0, 12.5)]
        if baseline:
            starts = [("start", "noise", s, i, t) for s in DENOISING for i, t in repeats]
            gaussian = [("baseline", "protocol", "gaussian", i, 0) for i in range(seeds)]
            curves_level = [("baseline", "curves", "gaussian", 0, 0)]
            for group, label, system, i, t in (*starts, *gaussian, *curves_level):
                key = f"{system}/{label}" if group == "start" else system
                rows.append(measurement(group, label, levels[key], i, system=system, training_seed=t))
            rows = [m.model_copy(update=_diversity(m)) for m in rows]
        size = 16
        images = {"real": 16, "class/glioma": 8, 'class/a_<b>&"c"': 8}
        images |= {f"samples/{s}": 16 for s in SYSTEMS}
        if baseline:
            images |= {f"samples/{name}": 16 for name in (*(f"{s}/noise" for s in DENOISING), "gaussian")}
        images |= {f"epochs/{s}/{x:g}": 8 for s in SYSTEMS for x in (5.0, 12.5)}
        images |= {f"schedule/{s}/{v}": 8 for s in ("ddpm", "lw_ddpm") for v in ("cosine", "linear")}
        shapes = {name: (num, size, size) for name, num in images.items()}
        shapes |= dict.fromkeys(("forward", "reverse"), (4, 8, size, size))
        edges = tuple(np.linspace(-5, 5, 101).tolist())
        histograms = [
            NoiseHistogram(
                system=s,
                timesteps=50,
                edges=edges,
                true=[np.histogram(random.normal(size=900), edges)[0].tolist() for _ in range(8)],
                predicted=[np.histogram(random.normal(scale=0.9, size=900), edges)[0].tolist() for _ in range(8)],
            )
            for s in ("ddpm", "ddim", "lw_ddpm")
        ]
        report = ComparisonReport(
            name="compare-test",
            run_id="abc",
            created="2026-01-02T03:04:05+00:00",
            environment={"processor": "a CPU, 2 CPUs", "GPU": "none"},
            dataset={
                "path": "datasets/x",
                "version": "0" * 64,
                "splits": {"train": 400, "validation": 50, "test": 50},
                "labels": ["glioma"],
            },
            simulated=False,
            image_size=32,
            settings=load_job("compare_demo").model_dump(mode="json"),
            protocol={},
            proxy={},
            distance="fd_lite0",
            extractor="EfficientNet-Lite0",
            weights_sha256="5793",
            missing=(Unavailable(name="fid", reason="no <weights>"),),
            systems=tuple(map(_system, SYSTEMS)),
            other_starts=tuple(
                _system(s).model_copy(update={"start": "noise", "network_calls": 50}) for s in DENOISING if baseline
            ),
            gaussian_directions=399 if baseline else None,
            trainings=tuple(training(s, s, 350_000 if s == "lw_ddpm" else 360_000) for s in SYSTEMS if s != "ddim"),
            measurements=tuple(rows),
            costs=tuple(
                Cost(
                    system=s,
                    images_per_s=(100.0, 101.0, 102.0),
                    peak_memory_mib=(200.0, 201.0, 202.0),
                    seconds_per_64=(0.1, 0.11, 0.12) if s in ("ddim", "gan") else (1.0, 1.1, 1.2),
                )
                for s in SYSTEMS
            )
            + (
                Cost(system="gaussian", images_per_s=(), peak_memory_mib=(), seconds_per_64=(0.001, 0.002)),
                Cost(system="lw_ddpm/noise", images_per_s=(1.0,), peak_memory_mib=(2.0,), seconds_per_64=(2.0, 2.0)),
            )
            * baseline,
            sample_sizes=tuple(
                SampleSize(label=label, n=n, values=(1000 / n, 1100 / n))
                for label in ("lw_ddpm", "ddpm", "real held-out slices")
                for n in (25, 50, 100)
            ),
            noise=tuple(histograms),
            snr={name: tuple(np.geomspace(1e3, 1e-3, 100).tolist()) for name in ("linear", "cosine")},
            strips={"forward": tuple(range(8)), "reverse": tuple(range(8, 0, -1))},
        )
        names = {"train/loss": 1.0, "val/loss": 1.1}
        steps = np.arange(1, 60, dtype=float)
        curves = {
            (s, metric): np.column_stack([steps, steps / 15, level / steps])
            for s in SYSTEMS
            if s != "ddim"
            for metric, level in names.items()
        }
        return ReportData(
            report=report.model_copy(update=changes),
            curves=Curves(curves),
            images=Images({n: random.integers(0, 255, shape, dtype=np.uint8) for n, shape in shapes.items()}),
        )

    return make
