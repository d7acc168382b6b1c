"""Statistics of an audit as its records, with what each says in words."""

from collections.abc import Sequence

import numpy as np
import torch

from lwddpm.audit.membership import attack, calibrated
from lwddpm.audit.result import AuditRecord
from lwddpm.audit.set_tests import authentic_share, data_copying, distance_gap, z_interval
from lwddpm.audit.shares import Share, exceeds, reproduced, share_of
from lwddpm.audit.utility.result import LearnerResult, Measured, UtilityResult
from lwddpm.evaluation.subset import random_subset
from lwddpm.kinds.audit.audited import Audited
from lwddpm.kinds.audit.membership import denoising_losses


def copied_records(
    flags: np.ndarray, copied: np.ndarray, subjects: Sequence[str | None], alarms: Share, power: dict[str, Share]
) -> list[AuditRecord]:
    """What was flagged, and by what that is to be read.

    Args:
        flags: of the slices drawn, bool [N]; copied: the training slice that each would be a copy of, int64 [N].
        subjects: whom each training slice shows.
    """
    flagged = share_of(int(flags.sum()), len(flags))
    slices = reproduced(flags, copied, list(range(len(subjects))))
    weakest = min((kind for kind in power if kind != "combined"), key=lambda kind: power[kind].value)
    records = [
        AuditRecord.of_share(
            "copied_share",
            flagged,
            "of the slices drawn the share flagged as copies of a training slice",
            exceeds(flagged, alarms),
            alarms.value,
        ),
        AuditRecord.of_share(
            "false_alarm_share", alarms, "of held-out groups, in place of slices drawn, the share flagged"
        ),
        AuditRecord.of_share("power", power[weakest], f"planted copies found, of the weakest kind: {weakest}"),
        AuditRecord.of_share(
            "reproduced_share", slices, f"of training slices the share reproduced among {len(flags):,} slices drawn"
        ),
    ]
    if all(subject is not None for subject in subjects):
        of_subjects = reproduced(flags, copied, subjects)
        what = "of the people trained on the share of whom a slice was reproduced"
        records.append(AuditRecord.of_share("reproduced_subject_share", of_subjects, what))
    return records


def set_tests(generated: torch.Tensor, held: torch.Tensor, train: torch.Tensor) -> list[AuditRecord]:
    """Tests of sets, on features [N, D] of slices drawn, held out and trained on."""
    generated = generated[: len(held)]
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
            null=0,
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
            null=0,
            what="fd_lite0 to held-out less to as many training slices; above 0: nearer to what was trained on",
        ),
    ]


def membership_records(
    audited: Audited, held_out: np.ndarray, groups: np.ndarray, held: torch.Tensor, train: torch.Tensor
) -> list[AuditRecord]:
    """Membership inference on the denoising loss; nothing of a GAN, or where the job leaves it out.

    Args:
        held_out, groups, held: the held-out slices, their groups and features.
        train: features of the training slices.
    """
    if audited.saved.diffusion is None or not audited.job.audit.membership:
        return []
    images, dataset = audited.dataset.images("train"), audited.dataset
    num = min(len(images), len(held_out))
    rows = random_subset(np.arange(len(images)), num)
    losses = np.concatenate(
        [
            denoising_losses(audited.model_dir, slices, audited.session, audited.exported)
            for slices in (images[rows], held_out)
        ]
    )
    features = torch.cat([train[rows], held])
    scores = calibrated(losses, features)
    found = attack(scores[:num], scores[num:], dataset.groups("train")[rows], groups)
    n = found.members + found.others
    return [
        AuditRecord(
            name="mia_auc",
            value=found.auc,
            low=found.auc_interval[0],
            high=found.auc_interval[1],
            n=n,
            null=0.5,
            what="membership inference by denoising loss, calibrated by neighbours: share of pairs told apart",
        ),
        AuditRecord(
            name="mia_tpr_at_1_fpr",
            value=found.tpr,
            low=found.tpr_interval[0],
            high=found.tpr_interval[1],
            n=n,
            null=0.01,
            what="training slices found by it at 1 % false positives",
        ),
    ]


def utility_records(utility: UtilityResult) -> list[AuditRecord]:
    """What gates, the dossier and tables tell of a study of utility."""
    return [record for each in utility.learners for record in _of_learner(each, utility.n, 1 / len(utility.classes))]


def _of_learner(each: LearnerResult, n: int, chance: float) -> list[AuditRecord]:
    beside = each.beside_all
    assert beside.gain is not None
    real, synthetic = each.real, each.synthetic
    told: tuple[tuple[str, Measured, int, float | None, str], ...] = (
        ("real", real.accuracy, n, None, f"balanced accuracy, learnt from all {real.num_real:,} real slices"),
        (
            "synthetic",
            synthetic.accuracy,
            n,
            None,
            f"the same, from {synthetic.num_synthetic:,} synthetic slices alone",
        ),
        (
            "on_synthetic",
            each.on_synthetic,
            each.n_synthetic,
            None,
            "learnt from all real slices, of synthetic ones by the class asked for; never to be read alone",
        ),
        (
            "gain",
            beside.gain,
            n,
            beside.p_adjusted,
            f"what {beside.num_synthetic:,} synthetic slices beside all real ones add to accuracy; p after Holm",
        ),
    )
    return [
        AuditRecord(
            name=f"utility_{name}_{each.learner}",
            value=found.value,
            low=found.low,
            high=found.high,
            n=num,
            p_value=p_value,
            null=0 if name == "gain" else chance,
            what=what,
        )
        for name, found, num, p_value, what in told
    ]
