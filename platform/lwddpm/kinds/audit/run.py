"""An audit: slices of a model compared with those it was trained on, what would have been found, and a verdict.

    <output>/<name>/
        run.json, result.json    as of a comparison
        slices/KEY/              slices drawn and what they score: a killed audit goes on there
        report/                  audit.json, audit.md, audit.html, figures: also artifacts of the run

A registered version gets `audit.json` too.
"""

import functools
import getpass
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lwddpm.addresses import public
from lwddpm.audit import page
from lwddpm.audit.canaries import KINDS, planted
from lwddpm.audit.membership import attack, calibrated
from lwddpm.audit.result import (
    FILE,
    MIXED,
    AuditRecord,
    AuditResult,
    FlaggedPair,
    MixedControl,
    explanation,
    judge,
    method_code,
    now,
)
from lwddpm.audit.scores import Scores
from lwddpm.audit.set_tests import authentic_share, data_copying, distance_gap, z_interval
from lwddpm.audit.shares import Share, by_class, exceeds, growth, mixed, reproduced, share_of
from lwddpm.audit.thresholds import calibrate, check_groups
from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.generate import draw_indices, settled
from lwddpm.cluster.session import Session
from lwddpm.config import AuditJob, SamplingConfig
from lwddpm.config.section import hex_digest
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError, DataError
from lwddpm.evaluation.features import EXTRACTION_VERSION
from lwddpm.evaluation.subset import random_subset
from lwddpm.files import cache_folder, read_json, write_json
from lwddpm.kinds.audit.compared import Comparer
from lwddpm.kinds.audit.membership import denoising_losses
from lwddpm.kinds.audit.sampling import sampling_of
from lwddpm.kinds.prepare import prepare, summary_of
from lwddpm.kinds.saved_model import fetch, fitting, start_of, version_uri
from lwddpm.progress import say
from lwddpm.tracking import attachments, registry
from lwddpm.tracking.earlier_runs import if_deleted, place_of, run_digest
from lwddpm.tracking.rundir import clear_folder, lock_folder, read_run_id, write_run_id
from lwddpm.tracking.runs import TrackedRun, tracked_run
from lwddpm.tracking.store import tracking_uri
from lwddpm.training.checkpoint import WEIGHTS_FILE, SavedModel
from lwddpm.training.stored_files import sha256_of
from lwddpm.training.stored_guide import GUIDE_FOLDER
from lwddpm.training.stored_prior import PRIOR_FILE

_SHOWN = 200  # flagged pairs in audit.json
_PICTURED = 24  # in a figure


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
        sampling = fitting(sampling_of(job, named, model_dir, saved), saved, model_dir, "sampling")
        weights = sha256_of(model_dir / WEIGHTS_FILE)
        digest = hex_digest([job.essentials() | {"model_uri": named}, weights, method_code()])
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
            run.dataset(dataset)
            if saved.diffusion is not None:
                sampling = settled(sampling.model_copy(update={"start": start_of(sampling, model_dir)}), session)
            audit = _Audit(job, named, model_dir, saved, weights, sampling, dataset, folder, session, exported)
            result = audit.result()
            report = folder / "report"
            audit.draw(result, report)
            run.client.log_artifacts(run.run_id, str(report), "audit")
            run.values(result.metrics(), step=saved.step)
            if named.startswith("models:/"):
                content = read_json(report / FILE) or {}
                attachments.attach(registry.find_version(named), attachments.AUDIT, content, getpass.getuser())
            summary = _summary(job, run, folder, uri, digest, dataset, result)
            write_json(folder / "result.json", summary)
    return summary


def check_dataset(job: AuditJob, dataset: Dataset, saved: SavedModel) -> None:
    """Refuse, before anything is drawn, a dataset that the audit cannot be made with.

    Raises:
        ConfigError: `audit.not_held_out` names what is not held out.
        DataError: the model was trained on another one, or there are too few held-out groups or training slices.
    """
    if dataset.version != saved.dataset_version:
        raise DataError(
            f"{dataset.path}: must be the dataset that the model was trained on, version {saved.dataset_version[:12]}, "
            f"is version {dataset.version[:12]}; give the settings of its training with --set data..."
        )
    sources = {source for split in ("validation", "test") for source in dataset.sources(split)}
    unknown = [name for name in job.audit.not_held_out if name not in sources]
    if unknown:
        raise ConfigError(
            f"audit.not_held_out: must name slices of validation or test, got {unknown[0]}; the report lists them as "
            "the dataset names them"
        )
    if dataset.num("train") < 2:
        raise DataError(f"{dataset.path}: an audit takes 2 or more training slices, got {dataset.num('train')}")
    _, groups, _ = _held_out(job, dataset)
    check_groups(len(np.unique(groups)), job.audit.false_alarm_rate, dataset.path)


def _held_out(job: AuditJob, dataset: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, groups and sources of the held-out slices, without those that a person has taken out."""
    splits = ("validation", "test")
    sources = np.array([source for split in splits for source in dataset.sources(split)], dtype=object)
    stays = ~np.isin(sources, list(job.audit.not_held_out))
    images = np.concatenate([dataset.images(split) for split in splits])
    groups = np.concatenate([dataset.groups(split) for split in splits])
    return images[stays], groups[stays], sources[stays]


class _Audit:
    """One audit on its way."""

    def __init__(
        self,
        job: AuditJob,
        named: str,
        model_dir: Path,
        saved: SavedModel,
        weights: str,
        sampling: SamplingConfig,
        dataset: Dataset,
        folder: Path,
        session: Session,
        exported: ExportedSeries,
    ) -> None:
        self.job, self.config, self.named, self.weights = job, job.audit, named, weights
        self.model_dir, self.saved, self.sampling, self.dataset = model_dir, saved, sampling, dataset
        self.session, self.exported = session, exported
        self.train = dataset.images("train")
        self.held_out, self.groups, self.sources = _held_out(job, dataset)
        self.train_sources, self.subjects = dataset.sources("train"), dataset.subjects("train")
        self.count = job.audit.num_drawn(len(self.train))
        parts = [model_dir / PRIOR_FILE, model_dir / GUIDE_FOLDER / WEIGHTS_FILE]
        known: list[Any] = [dataset.version, method_code(), EXTRACTION_VERSION]
        of_dataset = hex_digest([*known, self.config.seed, self.config.num_canaries, *self.config.not_held_out])
        known += [weights, *(sha256_of(part) for part in parts if part.exists()), sampling.essentials()]
        slices, shared = folder / "slices" / hex_digest(known), cache_folder() / "audit" / of_dataset
        self.comparer = Comparer(dataset, session, exported, slices, shared)

    def result(self) -> AuditResult:
        config = self.config
        self.held = self.comparer.kept("held_out", lambda: self.held_out)
        self.thresholds = calibrate(self.held.by_detector(), self.groups, config.false_alarm_rate, config.seed)
        self.found = {kind: self.thresholds.flags(self._planted(kind).by_detector()) for kind in KINDS}
        power = {kind: share_of(int(found.sum()), len(found)) for kind, found in self.found.items()}
        alarms = self.thresholds.false_alarms
        say(
            f"false alarms: {alarms.count} of {alarms.n} held-out groups; planted copies found: "
            + ", ".join(f"{kind} {share.value:.0%}" for kind, share in power.items())
        )
        self._draw()
        flagged = share_of(int(self.flags.sum()), len(self.flags))
        judged = functools.partial(
            judge,
            alarms=alarms,
            power=power,
            max_share=config.max_copied_share,
            min_power=config.min_power,
            rate=config.false_alarm_rate,
        )
        verdict, reasons = judged(flagged)
        records = [*self._records(flagged, alarms, power), *self._set_tests(), *self._membership()]
        return AuditResult(
            model=self.weights,
            model_uri=self.named,
            dataset=self.dataset.version,
            code=method_code(),
            date=now(),
            verdict=verdict,
            reasons=tuple(reasons),
            explanation=explanation(verdict, flagged, alarms, power),
            records=tuple(records),
            thresholds=self.thresholds.values,
            power={
                kind: AuditRecord.of_share(f"power of {kind}", share, f"of planted copies ({kind}) the share found")
                for kind, share in power.items()
            },
            controls=tuple(
                MixedControl(
                    kind=kind,
                    planted=planted_share,
                    flagged=share.value,
                    low=share.low,
                    high=share.high,
                    verdict=judged(share)[0],
                )
                for kind, found in self.found.items()
                for planted_share in MIXED
                for share in [mixed(self.flags, found, planted_share)]
            ),
            by_class={
                name: AuditRecord.of_share(name, share, "flagged, of slices nearest to this class")
                for name, share in by_class(
                    self.flags, self.copied, self.dataset.labels("train"), self.dataset.label_names
                ).items()
            },
            growth=tuple(growth(self.flags, self.copied)),
            held_out_alarms=self._pairs(self.held, self.thresholds.alarmed, self.sources),
            flagged=self._pairs(self.drawn, self.flags, None),
            num_flagged=int(self.flags.sum()),
            sampling=self.sampling,
            simulated=self.dataset.manifest.simulated,
            known_subjects=any(subject is not None for subject in self.subjects),
            settings=config.model_dump(mode="json"),
        )

    def _planted(self, kind: str) -> Scores:
        """What planted copies of a kind score; the same training slices for every kind."""

        def images() -> np.ndarray:
            return planted(random_subset(self.train, self.config.num_canaries), kind, self.config.seed)

        return self.comparer.kept(f"planted-{kind}", images)

    def _draw(self) -> None:
        """Draw and compare; embeddings are kept for as many slices as the set tests take, so that memory stays flat."""

        def draw(numbers: range) -> np.ndarray:
            described = f"sampling {numbers.start:,} to {numbers.stop:,} of {self.count:,}"
            return draw_indices(self.model_dir, self.sampling, numbers, self.session, self.exported, described)

        parts, embeddings = [], []
        for first, scores in self.comparer.drawn(draw, self.count, self.config.batch_size):
            if first < len(self.held_out):
                embeddings.append(scores.embedding)
            parts.append(scores._replace(embedding=np.empty((len(scores.near), 0), np.float32)))
        self.drawn, self.embedding = Scores.joined(parts), torch.from_numpy(np.concatenate(embeddings))
        self.flags = self.thresholds.flags(self.drawn.by_detector())
        self.copied = self.drawn.copied_row(self.thresholds.values["correlation"])

    def _records(self, flagged: Share, alarms: Share, power: dict[str, Share]) -> list[AuditRecord]:
        num = len(self.train)
        slices = reproduced(self.flags, self.copied, list(range(num)))
        weakest = min((kind for kind in power if kind != "combined"), key=lambda kind: power[kind].value)
        records = [
            AuditRecord.of_share(
                "copied_share",
                flagged,
                "of the slices drawn the share flagged as copies of a training slice",
                exceeds(flagged, alarms),
            ),
            AuditRecord.of_share(
                "false_alarm_share", alarms, "of held-out groups, in place of slices drawn, the share flagged"
            ),
            AuditRecord.of_share("power", power[weakest], f"planted copies found, of the weakest kind: {weakest}"),
            AuditRecord.of_share(
                "reproduced_share", slices, f"of training slices the share reproduced among {self.count:,} slices drawn"
            ),
        ]
        if all(subject is not None for subject in self.subjects):
            subjects = reproduced(self.flags, self.copied, self.subjects)
            what = "of the people trained on the share of whom a slice was reproduced"
            records.append(AuditRecord.of_share("reproduced_subject_share", subjects, what))
        return records

    def _set_tests(self) -> list[AuditRecord]:
        train = self.comparer.train_features
        held = torch.from_numpy(self.held.embedding)
        generated = self.embedding[: len(held)]
        ct, authentic = data_copying(generated, held, train), authentic_share(generated, held, train)
        gap = distance_gap(generated, held, train)
        low, high = z_interval(ct.value)
        of_authentic = share_of(round(authentic.value * authentic.n), authentic.n)
        return [
            AuditRecord(
                name="ct_z",
                value=ct.value,
                low=low,
                high=high,
                n=ct.n,
                p_value=ct.p_value,
                what="C_T: z of the distances to the nearest training slice, below -3: copying",
            ),
            AuditRecord.of_share(
                "authpct",
                of_authentic,
                "AuthPct: slices farther from their nearest training slice than that from its own",
                authentic.p_value,
            ),
            AuditRecord(
                name="fd_gap",
                value=gap.value,
                n=gap.n,
                p_value=gap.p_value,
                what="fd_lite0 to held-out less to as many training slices; above 0: nearer to what was trained on",
            ),
        ]

    def _membership(self) -> list[AuditRecord]:
        if self.saved.diffusion is None or not self.config.membership:
            return []
        num = min(len(self.train), len(self.held_out))
        rows = random_subset(np.arange(len(self.train)), num)
        losses = np.concatenate(
            [
                denoising_losses(self.model_dir, images, self.session, self.exported)
                for images in (self.train[rows], self.held_out)
            ]
        )
        features = torch.cat([self.comparer.train_features[rows], torch.from_numpy(self.held.embedding)])
        scores = calibrated(losses, features)
        found = attack(scores[:num], scores[num:], self.dataset.groups("train")[rows], self.groups)
        n = found.members + found.others
        return [
            AuditRecord(
                name="mia_auc",
                value=found.auc,
                low=found.auc_interval[0],
                high=found.auc_interval[1],
                n=n,
                what="membership inference by denoising loss, calibrated by neighbours: share of pairs told apart",
            ),
            AuditRecord(
                name="mia_tpr_at_1_fpr",
                value=found.tpr,
                low=found.tpr_interval[0],
                high=found.tpr_interval[1],
                n=n,
                what="training slices found by it at 1 % false positives; 0.01: nothing is betrayed",
            ),
        ]

    def _pairs(self, scores: Scores, flags: np.ndarray, names: np.ndarray | None) -> tuple[FlaggedPair, ...]:
        rows = np.flatnonzero(flags)
        rows = rows[np.argsort(-scores.match.score[rows], kind="stable")][:_SHOWN]
        limits, each = self.thresholds.values, scores.by_detector()
        copied = scores.copied_row(limits["correlation"])
        return tuple(
            FlaggedPair(
                index=row,
                name=None if names is None else names[row],
                source=self.train_sources[copied[row]],
                subject=self.subjects[copied[row]],
                correlation=float(each["correlation"][row]),
                features=float(each["features"][row]),
                by=tuple(name for name in limits if each[name][row] > limits[name]),
                moved=scores.moved(row),
            )
            for row in rows.tolist()
        )

    def draw(self, result: AuditResult, folder: Path) -> None:
        """Write audit.json, its page and its figures."""
        row_of = {source: row for row, source in enumerate(self.train_sources)}

        def training(pair: FlaggedPair) -> np.ndarray:
            return np.asarray(self.train[row_of[pair.source]])

        drawn = [
            (self.comparer.slices(pair.index, self.count, self.config.batch_size), training(pair), pair)
            for pair in result.flagged
        ]
        held = [(self.held_out[pair.index], training(pair), pair) for pair in result.held_out_alarms[:_PICTURED]]
        kinds = {kind: self._planted(kind).match.score for kind in KINDS}
        page.draw(result, folder, drawn, held, self.drawn.match.score, self.held.match.score, kinds)


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
