"""`audit.json`: what an audit found, what it would have found, and its verdict in words."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from lwddpm.audit.shares import Share, exceeds
from lwddpm.audit.utility.result import UtilityResult
from lwddpm.config import Part, SamplingConfig
from lwddpm.config.section import hex_digest
from lwddpm.wording import listed

METHOD = "1"
_METHOD_IN = ("canaries", "correlation", "feature_search", "membership", "set_tests", "shares", "thresholds")
FILE = "audit.json"
MIXED = (0.01, 0.05, 0.2)  # shares of planted copies among the slices that the audit is tried on
SIGNIFICANT = 0.01  # p-value below which more slices are flagged than false alarms explain
_RECOGNISED = 0.1  # of training slices at 1 % of false alarms: ten times what guessing gives
_NOT_CLAIMED = ("combined",)  # a kind that is reported, and that no verdict depends on
Verdict = Literal["clear", "copies", "undecided"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AuditRecord(_Part):
    """One figure of an audit.

    Attributes:
        low, high: its interval of 95 %; None where it has none.
        n: slices, groups or subjects that it is a share of or was measured on.
        p_value: that chance alone, without copies, gives as much.
        null: the value without copies, or where nothing is betrayed or learnt; None where it is not known.
        what: in words.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int
    p_value: float | None = None
    null: float | None = None
    what: str

    @classmethod
    def of_share(
        cls, name: str, share: Share, what: str, p_value: float | None = None, null: float | None = None
    ) -> "AuditRecord":
        ends = {"low": share.low, "high": share.high}
        return cls(name=name, value=share.value, n=share.n, p_value=p_value, null=null, what=what, **ends)


class MixedControl(_Part):
    """What the audit says of the same slices after some were replaced by planted copies of one kind."""

    kind: str
    planted: float
    flagged: float
    low: float
    high: float
    verdict: Verdict


class FlaggedPair(_Part):
    """A slice that was flagged, and the training slice that it resembles most.

    Attributes:
        index: number of the slice under the sampling seed; of held-out slices their place.
        name: source of a held-out slice; None of one that was drawn.
        source: file of the training slice; subject: whom it shows, None where that is not known.
        correlation, features: scores.
        by: detectors that flagged it.
        moved: how it was moved onto the training slice.
    """

    index: int
    name: str | None
    source: str
    subject: str | None
    correlation: float
    features: float
    by: tuple[str, ...]
    moved: str


class SnapshotShare(_Part):
    """What a snapshot of the training scores, or the model itself.

    Attributes:
        copied_share, low, high: share of its slices that is flagged, with the interval of 95 %.
        n: slices drawn.
        fd_lite0: of these against the training slices.
    """

    epoch: float
    step: int
    n: int
    copied_share: float
    low: float
    high: float
    fd_lite0: float

    def metrics(self) -> dict[str, float]:
        """For MLflow, at the snapshot's step."""
        return {"audit/snapshot_copied_share": self.copied_share, "audit/snapshot_fd_lite0": self.fd_lite0}


class AuditResult(_Part):
    """The whole of `audit.json`.

    Attributes:
        model: SHA-256 of the audited model's weights.
        dataset: version of the dataset that it was trained on.
        code: of the method; audits of another one are not comparable.
        verdict: clear, copies or undecided; `reasons` and `explanation` say why.
        thresholds: detector -> the score above which a slice is flagged.
        power: kind of planted copy -> the share of them that is found.
        controls: the positive ones by mixture; the negative one is the record `false_alarm_share`.
        by_class: flagged share by class of the nearest training slice: value, low, high, n.
        growth: slices drawn, flagged among them, training slices that these reproduce.
        held_out_alarms: held-out slices that were flagged, the false alarms: for a person to look at.
        flagged: the first of the flagged pairs.
        snapshots: of the training, by rising epoch, the model last; empty where nobody asked (`audit.snapshots`).
        parts: of the audit that were made. Without `memorisation` there is no verdict but undecided, and no thresholds,
            power, controls, classes, growth or pairs.
        not_measured: part -> why it was not made.
    """

    model: str
    model_uri: str
    dataset: str
    code: str
    date: str
    verdict: Verdict
    reasons: tuple[str, ...]
    explanation: tuple[str, ...]
    records: tuple[AuditRecord, ...]
    thresholds: dict[str, float]
    power: dict[str, AuditRecord]
    controls: tuple[MixedControl, ...]
    by_class: dict[str, AuditRecord]
    growth: tuple[tuple[int, int, int], ...]
    held_out_alarms: tuple[FlaggedPair, ...]
    flagged: tuple[FlaggedPair, ...]
    num_flagged: int
    sampling: SamplingConfig
    simulated: bool
    known_subjects: bool
    settings: dict[str, Any]
    snapshots: tuple[SnapshotShare, ...] = ()
    parts: tuple[Part, ...] = ("memorisation",)
    not_measured: dict[Part, str] = {}
    utility: UtilityResult | None = None

    def record(self, name: str) -> AuditRecord | None:
        return next((record for record in self.records if record.name == name), None)

    @property
    def copied_words(self) -> str:
        """The copied share, which stands beside whatever is said of the use of the slices."""
        copied = self.record("copied_share")
        if copied is None or copied.low is None or copied.high is None:
            return "copied share: not measured; copies make any generator look useful"
        return (
            f"copied share {copied.value:.2%} ({copied.low:.2%} to {copied.high:.2%}, n = {copied.n:,}), verdict "
            f"{self.verdict}; copies make any generator look useful"
        )

    def metrics(self) -> dict[str, float]:
        """For MLflow: `audit/NAME`, its bounds, and the power by kind."""
        values = {f"audit/{record.name}": record.value for record in self.records}
        values |= {f"audit/{record.name}_high": record.high for record in self.records if record.high is not None}
        if self.utility is not None:
            values |= self.utility.metrics()
        return values | {f"audit/power_{kind.replace('-', '_')}": record.value for kind, record in self.power.items()}


def without_memorisation(parts: tuple[Part, ...], **known: Any) -> AuditResult:
    """Of an audit that did not look for copies.

    Args:
        known: the fields that do not come from looking for them.
    """
    why = "whether it returns training slices was not measured: memorisation is not in audit.parts"
    return AuditResult(
        verdict="undecided",
        reasons=(why,),
        explanation=("Undecided: this audit has looked for no copies. Copies make any generator look useful.",),
        records=(),
        thresholds={},
        power={},
        controls=(),
        by_class={},
        growth=(),
        held_out_alarms=(),
        flagged=(),
        num_flagged=0,
        parts=parts,
        **known,
    )


def judge(
    flagged: Share, alarms: Share, power: dict[str, Share], *, max_share: float, min_power: float, rate: float
) -> tuple[Verdict, list[str]]:
    """The verdict, and why, a reason a line.

    Copies: more slices are flagged than false alarms explain. Clear: with 95 % confidence no more than `max_share` are
    copies, of the kinds that the audit would have found. Otherwise undecided.

    Args:
        flagged: of the slices drawn; alarms: of held-out groups; power: of each kind of planted copy.
    """
    p_value = exceeds(flagged, alarms)
    if p_value < SIGNIFICANT:
        return "copies", [
            f"{flagged.count:,} of {flagged.n:,} slices ({flagged.value:.2%}) are flagged as copies of training "
            f"slices, where real slices that the model never saw raise {alarms.count} false alarms in {alarms.n} "
            f"({alarms.value:.2%}); by chance that happens with p {_told(p_value)}"
        ]
    reasons = []
    if alarms.low > rate:
        reasons.append(
            f"the false alarms, {alarms.value:.2%} of {alarms.n} held-out groups, are more than the {rate:.2%} that "
            "were wanted: held-out slices may show training patients; look at them"
        )
    weak = [kind for kind, share in power.items() if share.low < min_power and kind not in _NOT_CLAIMED]
    if weak:
        reasons.append(
            f"of planted copies the audit does not surely find {min_power:.0%}: "
            + ", ".join(f"{kind} {power[kind].value:.0%} (at least {power[kind].low:.1%})" for kind in weak)
        )
    if flagged.high > max_share:
        reasons.append(
            f"up to {flagged.high:.2%} of the slices may be copies, and audit.max_copied_share is {max_share:.2%}; "
            "more slices (audit.num_samples) narrow that down, as far as the false alarms allow"
        )
    if reasons:
        return "undecided", reasons
    return "clear", [
        f"{flagged.count:,} of {flagged.n:,} slices ({flagged.value:.2%}) are flagged, no more than false alarms "
        f"explain ({alarms.count} in {alarms.n} held-out groups); with 95 % confidence at most {flagged.high:.2%} are "
        "copies of the kinds that were planted and found"
    ]


def _told(p_value: float) -> str:
    return f"= {p_value:.1g}" if p_value > 1e-99 else "< 1e-99"


def recognised(membership: AuditRecord | None) -> str | None:
    """The reason against `clear` where membership inference recognises training slices; None where it does not.

    Args:
        membership: the record `mia_tpr_at_1_fpr`, if that was tried.
    """
    if membership is None or membership.low is None or membership.low <= _RECOGNISED:
        return None
    return (
        f"who holds the weights and a scan recognises {membership.value:.0%} (at least {membership.low:.0%}) of the "
        f"training slices by their denoising loss, at one false alarm in a hundred: more than {_RECOGNISED:.0%}. The "
        "model has learnt them by heart, also where it does not draw them"
    )


def explanation(verdict: Verdict, flagged: Share, alarms: Share, power: dict[str, Share]) -> tuple[str, ...]:
    """The verdict for somebody who decides about release and does not know the method, a paragraph each."""
    means = {
        "clear": "Clear: no sign that the model returns scans that it was trained on. What this audit could have "
        "missed is said below.",
        "copies": "Copies: the model returns scans that it was trained on, or slices that differ from them too little. "
        "Slices of it are scans of patients, and so is the model.",
        "undecided": "Undecided: the audit can neither show copies nor rule them out. It must not be read as clear.",
    }[verdict]
    found = [kind for kind, share in power.items() if share.low >= 0.9]
    missed = [f"{kind} ({share.value:.0%} found)" for kind, share in power.items() if kind not in found]
    return (
        means,
        f"{flagged.n:,} slices were drawn and compared with every training slice, also mirrored, turned by up to 6 "
        f"degrees and shifted by up to 4 pixels, whatever their brightness and contrast; {flagged.count:,} were "
        "flagged.",
        f"How similar is too similar was set on {alarms.n} groups of real slices that the model never saw. Tried on "
        f"such slices the rule raised {alarms.count} false alarms: between {alarms.low:.2%} and {alarms.high:.2%} of "
        "slices that are no copies are flagged, with 95 % confidence.",
        "Copies of training slices were planted to see what would be found: "
        + (f"surely found are {listed(found)}. " if found else "no kind is surely found. ")
        + (f"Not surely found: {listed(missed)}." if missed else ""),
        "Not shown: copies of parts of a slice, copies moved farther than that, copies beyond the number drawn, and "
        "what somebody may learn who holds the weights (see membership inference). It is no guarantee of differential "
        "privacy, and no proof of anonymity. Flagged pairs are for a person to look at.",
    )


def method_code() -> str:
    """The version of the method, and a hash of the code that computes scores, thresholds and controls."""
    room = Path(__file__).parent
    sources = {name: (room / f"{name}.py").read_text(encoding="utf-8") for name in _METHOD_IN}
    return f"{METHOD}-{hex_digest(sources)}"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
