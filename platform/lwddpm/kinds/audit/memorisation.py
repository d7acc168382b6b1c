"""The part `memorisation` of an audit: slices compared with the training slices, and what would have been found."""

import functools

import numpy as np
import torch

from lwddpm.audit import page
from lwddpm.audit.canaries import KINDS, planted
from lwddpm.audit.result import (
    MIXED,
    AuditRecord,
    AuditResult,
    FlaggedPair,
    MixedControl,
    SnapshotShare,
    explanation,
    judge,
    method_code,
    now,
    recognised,
)
from lwddpm.audit.scores import Scores
from lwddpm.audit.shares import by_class, growth, mixed, share_of
from lwddpm.audit.thresholds import calibrate
from lwddpm.config.section import hex_digest
from lwddpm.evaluation.subset import random_subset
from lwddpm.files import cache_folder
from lwddpm.kinds.audit.audited import Audited, held_out
from lwddpm.kinds.audit.compared import Comparer
from lwddpm.kinds.audit.drawings import Drawings
from lwddpm.kinds.audit.records import copied_records, membership_records, set_tests
from lwddpm.kinds.audit.snapshots import over_snapshots
from lwddpm.progress import say

_SHOWN = 200  # flagged pairs in audit.json
_PICTURED = 24  # in a figure


class Memorisation:
    """This part on its way."""

    def __init__(self, audited: Audited) -> None:
        self.audited, self.config, self.dataset = audited, audited.job.audit, audited.dataset
        self.train = self.dataset.images("train")
        self.held_out, self.groups, self.sources = held_out(audited.job, self.dataset)
        self.train_sources, self.subjects = self.dataset.sources("train"), self.dataset.subjects("train")
        self.slices = Drawings(audited, audited.sampling, self.config.num_drawn(len(self.train)))
        known = [*audited.of_dataset, self.config.seed, self.config.num_canaries, *self.config.not_held_out]
        shared = cache_folder() / "audit" / hex_digest(known)
        self.comparer = Comparer(self.dataset, audited.session, audited.exported, shared)

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
        train, held = self.comparer.train_features, torch.from_numpy(self.held.embedding)
        records = [
            *copied_records(self.flags, self.copied, self.subjects, alarms, power),
            *set_tests(self.embedding, held, train),
            *membership_records(self.audited, self.held_out, self.groups, held, train),
        ]
        leak = recognised(next((record for record in records if record.name == "mia_tpr_at_1_fpr"), None))
        if leak is not None:
            verdict, reasons = "undecided" if verdict == "clear" else verdict, [*reasons, leak]
        return AuditResult(
            model=self.audited.weights,
            model_uri=self.audited.named,
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
            sampling=self.audited.sampling,
            simulated=self.dataset.manifest.simulated,
            known_subjects=self.audited.known_subjects,
            settings=config.model_dump(mode="json"),
            snapshots=self._snapshots(),
        )

    def _snapshots(self) -> tuple[SnapshotShare, ...]:
        if not self.config.snapshots:
            return ()
        num = min(self.slices.count, len(self.held_out))
        return over_snapshots(self.audited, self.comparer, self.thresholds, num)

    def _planted(self, kind: str) -> Scores:
        """What planted copies of a kind score; the same training slices for every kind."""

        def images() -> np.ndarray:
            return planted(random_subset(self.train, self.config.num_canaries), kind, self.config.seed)

        return self.comparer.kept(f"planted-{kind}", images)

    def _draw(self) -> None:
        """Draw and compare; embeddings are kept for as many slices as the set tests take, so that memory stays flat."""
        parts, embeddings = [], []
        for numbers in self.slices.chunks:
            scores = self.comparer.drawn(self.slices, numbers)
            if numbers.start < len(self.held_out):
                embeddings.append(scores.embedding)
            parts.append(scores._replace(embedding=np.empty((len(scores.near), 0), np.float32)))
        self.drawn, self.embedding = Scores.joined(parts), torch.from_numpy(np.concatenate(embeddings))
        self.flags = self.thresholds.flags(self.drawn.by_detector())
        self.copied = self.drawn.copied_row(self.thresholds.values["correlation"])

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

    def flagged_slices(self, result: AuditResult) -> np.ndarray:
        """Those of `result.flagged`, uint8 [N, S, S]."""
        size = self.dataset.manifest.image_size
        return np.array([self.slices.slice(pair.index) for pair in result.flagged], np.uint8).reshape(-1, size, size)

    def drawings(self, result: AuditResult) -> list[page.Drawing]:
        """The figures of this part."""
        row_of = {source: row for row, source in enumerate(self.train_sources)}

        def training(pair: FlaggedPair) -> np.ndarray:
            return np.asarray(self.train[row_of[pair.source]])

        drawn = [(self.slices.slice(pair.index), training(pair), pair) for pair in result.flagged[:_PICTURED]]
        held = [(self.held_out[pair.index], training(pair), pair) for pair in result.held_out_alarms[:_PICTURED]]
        kinds = {kind: self._planted(kind).match.score for kind in KINDS}
        return page.memorisation(result, drawn, held, self.drawn.match.score, self.held.match.score, kinds)
