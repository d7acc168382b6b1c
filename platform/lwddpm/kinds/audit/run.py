"""An audit: slices of a model compared with those it was trained on, and what a classifier learns from them.

    <output>/<name>/
        run.json, result.json    as of a comparison
        slices/KEY/              slices drawn and what they score: a killed audit goes on there
        utility/KEY/             what classifiers learnt from and answered
        report/                  audit.json, audit.md, audit.html, figures: also artifacts of the run

A registered version gets `audit.json` too, if the audit looked for copies: the use of slices is never told without.
"""

import getpass
import json
from pathlib import Path
from typing import Any

import numpy as np

from lwddpm.addresses import public
from lwddpm.audit import page
from lwddpm.audit.result import FILE, AuditResult, method_code, now, without_memorisation
from lwddpm.audit.utility.result import method_code as utility_code
from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.generate import draw_indices, settled
from lwddpm.cluster.session import Session
from lwddpm.config import AuditJob, Part, SamplingConfig
from lwddpm.config.section import hex_digest
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError
from lwddpm.files import read_json, write_json
from lwddpm.kinds.audit.audited import Audited, check_dataset, check_held_out
from lwddpm.kinds.audit.memorisation import Memorisation
from lwddpm.kinds.audit.parts import check_classes, parts_of
from lwddpm.kinds.audit.records import utility_records
from lwddpm.kinds.audit.sampling import sampling_of
from lwddpm.kinds.audit.snapshots import check_snapshots
from lwddpm.kinds.audit.utility import measure_utility
from lwddpm.kinds.prepare import prepare, summary_of
from lwddpm.kinds.saved_model import fetch, fitting, start_of, version_uri
from lwddpm.progress import say
from lwddpm.tracking import attachments, registry
from lwddpm.tracking.earlier_runs import if_deleted, place_of, run_digest
from lwddpm.tracking.rundir import clear_folder, lock_folder, read_run_id, write_run_id
from lwddpm.tracking.runs import TrackedRun, tracked_run
from lwddpm.tracking.store import tracking_uri
from lwddpm.training.stored_files import sha256_of
from lwddpm.training.stored_model import WEIGHTS_FILE


def audit_folder(job: AuditJob) -> Path:
    return Path(job.output).absolute() / job.name


def run_audit(job: AuditJob, session: Session, fresh: bool) -> dict[str, Any]:
    """Run or continue an audit to its end.

    Raises:
        ConfigError: no such model, or settings that do not fit it.
        DataError: another dataset than the model was trained on, or too few held-out groups.
        KeyboardInterrupt: stopped by the user; the same command continues.
    """
    folder, uri = audit_folder(job), tracking_uri(job.tracking)
    with lock_folder(folder):
        named = version_uri(job)
        model_dir, saved = fetch(job.model_copy(update={"model_uri": named}), session)
        if saved.image_size != job.data.image_size:
            raise ConfigError(
                f"data.image_size: must be the model's {saved.image_size}, got {job.data.image_size}; "
                f"set data.image_size={saved.image_size}"
            )
        if job.audit.snapshots:
            check_snapshots(model_dir)
        sampling = fitting(sampling_of(job, named, model_dir, saved), saved, model_dir, "sampling")
        parts, not_measured = parts_of(job, saved, model_dir)
        weights = sha256_of(model_dir / WEIGHTS_FILE)
        codes = [method_code(), *([utility_code()] if "utility" in parts else [])]
        digest = hex_digest([job.essentials() | {"model_uri": named}, sampling.essentials(), weights, *codes])
        done = read_json(folder / "result.json")
        if not fresh and done is not None and done["digest"] == digest and done["tracking_uri"] == public(uri):
            say(f"{job.name}: finished already, in {folder}; --fresh does it all again{if_deleted(uri, done)}")
            return done
        if fresh:
            clear_folder(folder)
        place = place_of(job, uri, read_run_id(folder, uri))
        with (
            tracked_run(job, uri, place.run_id, run_digest(job), parent=place.parent) as run,
            ExportedSeries(job.name, run.run_id) as exported,
        ):
            if place.parent is None:
                write_run_id(folder, run.run_id, uri)
            dataset = prepare(job.data, session, fresh=False)
            session.rest()
            check_dataset(job, dataset, saved)
            if "memorisation" in parts:
                check_held_out(job, dataset)
            if "utility" in parts:
                check_classes(dataset)
            run.dataset(dataset)
            if saved.diffusion is not None:
                sampling = settled(sampling.model_copy(update={"start": start_of(sampling, model_dir)}), session)

            def draw(how: SamplingConfig, numbers: range, count: int) -> np.ndarray:
                described = f"sampling {numbers.start:,} to {numbers.stop:,} of {count:,}"
                return draw_indices(model_dir, how, numbers, session, exported, described)

            audited = Audited(job, named, model_dir, saved, weights, sampling, dataset, folder, session, exported, draw)
            result, drawings, flagged = _result(audited, parts, not_measured)
            report = folder / "report"
            page.draw(result, report, drawings, flagged)
            run.client.log_artifacts(run.run_id, str(report), "audit")
            run.values(result.metrics(), step=saved.step)
            for snapshot in result.snapshots:
                run.values(snapshot.metrics(), step=snapshot.step)
            if named.startswith("models:/") and "memorisation" in parts:
                content = read_json(report / FILE) or {}
                attachments.attach(registry.find_version(named), attachments.AUDIT, content, getpass.getuser())
            summary = _summary(job, run, folder, uri, digest, dataset, result)
            write_json(folder / "result.json", summary)
    return summary


def _result(
    audited: Audited, parts: tuple[Part, ...], not_measured: dict[Part, str]
) -> tuple[AuditResult, list[page.Drawing], np.ndarray | None]:
    """What all parts have found, the figures of those that are drawn from more than that, and the flagged slices."""
    drawings: list[page.Drawing] = []
    flagged = None
    if "memorisation" in parts:
        memorisation = Memorisation(audited)
        result = memorisation.result()
        drawings, flagged = memorisation.drawings(result), memorisation.flagged_slices(result)
    else:
        result = without_memorisation(
            parts,
            model=audited.weights,
            model_uri=audited.named,
            dataset=audited.dataset.version,
            code=method_code(),
            date=now(),
            sampling=audited.sampling,
            simulated=audited.dataset.manifest.simulated,
            known_subjects=audited.known_subjects,
            settings=audited.job.audit.model_dump(mode="json"),
        )
    for part, why in not_measured.items():
        say(f"{part}: not measured; it {why}")
    result = result.model_copy(update={"parts": parts, "not_measured": not_measured})
    if "utility" in parts:
        utility = measure_utility(audited)
        records = (*result.records, *utility_records(utility))
        result = result.model_copy(update={"utility": utility, "records": records})
    return result, drawings, flagged


def _summary(
    job: AuditJob, run: TrackedRun, folder: Path, uri: str, digest: str, dataset: Dataset, result: AuditResult
) -> dict[str, Any]:
    return {
        "name": job.name,
        "digest": digest,
        "run_id": run.run_id,
        "run_dir": str(folder),
        "tracking_uri": public(uri),
        "dataset": summary_of(dataset),
        "audit": json.loads(result.model_dump_json(exclude={"flagged", "held_out_alarms", "growth", "controls"})),
        "report": str(folder / "report" / page.HTML),
    }
