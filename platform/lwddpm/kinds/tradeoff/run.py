"""A trade-off: one model drawn in many ways, each measured alike; the recommended ways become presets of the model.

<output>/<name>/
    run.json, result.json      as of a training
    cache/                     samples, measurements and features, each made once
    tradeoff/                  tradeoff.json, tradeoff.csv, figures, tradeoff.html: also artifacts of the run
"""

from pathlib import Path
from typing import Any

import numpy as np

from lwddpm.addresses import public
from lwddpm.cluster.session import Session
from lwddpm.config import EvaluationConfig, TradeoffJob
from lwddpm.errors import DataError
from lwddpm.evaluation.protocol import num_evaluated
from lwddpm.evaluation.tradeoff import AIMS, Aim, Tradeoff
from lwddpm.files import read_json, write_json
from lwddpm.kinds.compare.kept import MeasurementCache
from lwddpm.kinds.prepare import prepare, summary_of
from lwddpm.kinds.presets import presets_of
from lwddpm.kinds.saved_model import fetch, version_uri
from lwddpm.kinds.tradeoff.measure import measure
from lwddpm.kinds.tradeoff.plan import make_plan
from lwddpm.progress import say
from lwddpm.report import tradeoff as report
from lwddpm.tracking import version_presets
from lwddpm.tracking.earlier_runs import if_deleted, place_of, run_digest
from lwddpm.tracking.rundir import clear_folder, lock_folder, read_run_id, tradeoff_folder, write_run_id
from lwddpm.tracking.runs import tracked_run
from lwddpm.tracking.store import tracking_uri
from lwddpm.training.stored_presets import Figure, Preset, read_presets, write_presets
from lwddpm.wording import counted

_LONGEST_WHY = 1000  # characters of `Preset.why`: labels of points may be long


def run_tradeoff(job: TradeoffJob, session: Session, fresh: bool) -> dict[str, Any]:
    """Run or continue a trade-off to its end.

    Raises:
        ConfigError: wrong input.
        DataError: another dataset than the model was trained on, or too few slices.
        KeyboardInterrupt: stopped by the user; the same command continues.
    """
    folder, uri = tradeoff_folder(job), tracking_uri(job.tracking)
    with lock_folder(folder):
        model_uri = version_uri(job)
        job = job.model_copy(update={"model_uri": model_uri})  # an alias may move
        done = read_json(folder / "result.json")
        if not fresh and done is not None and job.has_result(done) and done["tracking_uri"] == public(uri):
            say(f"{job.name}: finished already, in {folder}; --fresh does it all again{if_deleted(uri, done)}")
            return done
        if fresh:
            clear_folder(folder)
        model_dir, saved = fetch(job, session)
        place = place_of(job, uri, read_run_id(folder, uri))
        with tracked_run(job, uri, place.run_id, run_digest(job), parent=place.parent) as run:
            if place.parent is None:
                write_run_id(folder, run.run_id, uri)
            dataset = prepare(job.data, session, fresh)
            session.rest()
            if dataset.version != saved.dataset_version:
                raise DataError(
                    f"{dataset.path}: must be the dataset that the model was trained on, version "
                    f"{saved.dataset_version[:12]}, for copies of its slices are looked for; is version "
                    f"{dataset.version[:12]}; give the data settings of its training"
                )
            run.dataset(dataset)
            presets = presets_of(model_uri, model_dir)
            n = num_evaluated(dataset, EvaluationConfig(num_samples=job.tradeoff.num_samples))
            plan = make_plan(job.tradeoff, model_dir, presets, n)
            measured = measure(job, plan, dataset, MeasurementCache(folder / "cache", dataset, session, None), n)
            report.write(measured, folder / "tradeoff")
            run.client.log_artifacts(run.run_id, str(folder / "tradeoff"), "tradeoff")
            run.values(_headline(measured), step=saved.step)
            made = presets_from(measured)
            result = {
                "name": job.name,
                "digest": job.result_digest(),
                "run_id": run.run_id,
                "run_dir": str(folder),
                "tracking_uri": public(uri),
                "dataset": summary_of(dataset),
                "model_uri": model_uri,
                "report": str(folder / "tradeoff" / report.HTML),
                "ways": _rows(measured),
                "n": n,
                "presets": {name: preset.model_dump(mode="json") for name, preset in made.items()},
                "stored": _store(job, model_uri, model_dir, made),
                "model": None,
            }
            write_json(folder / "result.json", result)
    return result


def presets_from(measured: Tradeoff) -> dict[str, Preset]:
    """The presets that are recommended, by aim."""
    ways = {way.label: way for way in measured.ways}
    made: dict[str, Preset] = {}
    for aim, recommendation in measured.recommended.items():
        way = ways[recommendation.label]
        figures = {
            name: Figure(
                value=way.mean(name),
                floor=measured.floor(name),
                n=measured.n,
                samplings=len(measured.sampling_seeds),
            )
            for name in measured.metrics
        }
        made[aim] = Preset(
            sampling=way.sampling,
            network_calls=way.network_calls,
            figures=figures,
            why=recommendation.why[:_LONGEST_WHY],
        )
    return made


def _store(job: TradeoffJob, model_uri: str, model_dir: Path, made: dict[str, Preset]) -> str:
    """Keep presets with the model; says where, or why not."""
    if not made:
        say("no way to draw is recommended: all return copies of training slices, or have figures that are not finite")
        return "nothing: no way to draw may be recommended"
    if not job.tradeoff.store:
        return "nothing: tradeoff.store is false"
    if model_uri.startswith("models:/"):
        version_presets.add_presets(model_uri, made)
    else:
        write_presets(model_dir, read_presets(model_dir).with_presets(made))
    for name, preset in made.items():
        say(f"preset {name}: {preset.words}, {counted(preset.network_calls, 'call')}; {preset.why}")
    return model_uri


def _headline(measured: Tradeoff) -> dict[str, float]:
    """The recommended ways as metrics of the run: `AIM/NAME`; those of real slices as `floor/NAME`."""
    metrics = {f"floor/{name}": value for name, value in measured.floors.items()}
    for aim, preset in presets_from(measured).items():
        metrics |= {f"{aim}/{name}": figure.value for name, figure in preset.figures.items()}
        metrics[f"{aim}/network_calls"] = preset.network_calls
    return metrics


def _rows(measured: Tradeoff) -> list[dict[str, Any]]:
    """For people and `--json`: a row for each way."""
    aims: dict[str, list[Aim]] = {}
    for aim in AIMS:
        if aim in measured.recommended:
            aims.setdefault(measured.recommended[aim].label, []).append(aim)
    return [
        {
            "label": way.label,
            "sampling": way.words,
            "weights": way.weights,
            "network_calls": way.network_calls,
            **{name: way.mean(name) for name in measured.metrics},
            "nearest": float(np.mean(way.nearest)),
            "copies": way.copies,
            "recommended": aims.get(way.label, []),
        }
        for way in measured.ways
    ] + [
        {
            "label": "real held-out slices",
            "sampling": "",
            "weights": "",
            "network_calls": None,
            **measured.floors,
            "nearest": measured.nearest_floor,
            "copies": False,
            "recommended": [],
        }
    ]
