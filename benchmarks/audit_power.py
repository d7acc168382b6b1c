"""What an audit of a dataset's models would find, without a model: the first table of docs/audit.md.

    python benchmarks/audit_power.py datasets/NAME --canaries 200

Thresholds from the held-out groups; planted copies of every kind; and what the verdict is where slices that are no
copies (held-out ones, as often as they raise an alarm) are mixed with 1, 5 and 20 % of planted copies.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from lwddpm.audit.canaries import KINDS, planted
from lwddpm.audit.result import MIXED, judge
from lwddpm.audit.shares import mixed, share_of
from lwddpm.audit.thresholds import calibrate
from lwddpm.cluster.session import Session
from lwddpm.config import WorkersConfig
from lwddpm.data.store import open_dataset
from lwddpm.evaluation.subset import random_subset
from lwddpm.kinds.audit.compared import Comparer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="a prepared dataset")
    parser.add_argument("--canaries", type=int, default=200)
    parser.add_argument("--slices", type=int, default=10_000, help="in a mixture")
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--not-held-out", nargs="*", default=[], metavar="SOURCE")
    arguments = parser.parse_args()
    dataset, splits = open_dataset(arguments.dataset), ("validation", "test")
    sources = np.array([source for split in splits for source in dataset.sources(split)], dtype=object)
    stays = ~np.isin(sources, arguments.not_held_out)
    held_out = np.concatenate([dataset.images(split) for split in splits])[stays]
    groups = np.concatenate([dataset.groups(split) for split in splits])[stays]
    with tempfile.TemporaryDirectory() as folder, Session(WorkersConfig(count=1)) as session:
        comparer = Comparer(dataset, session, None, Path(folder))
        held = comparer.kept("held_out", lambda: held_out)
        thresholds = calibrate(held.by_detector(), groups, arguments.rate)
        train = random_subset(dataset.images("train"), arguments.canaries)
        scores = {kind: comparer.kept(kind, lambda kind=kind: planted(train, kind, 0)) for kind in KINDS}  # type: ignore[misc]
    alarms = thresholds.false_alarms
    print(f"thresholds {', '.join(f'{name} {value:.4f}' for name, value in thresholds.values.items())}")
    print(
        f"false alarms {alarms.count} of {alarms.n} groups, {alarms.value:.2%} ({alarms.low:.2%} to {alarms.high:.2%})"
    )
    for row in np.flatnonzero(thresholds.alarmed).tolist():
        match, of = held.match, dataset.sources("train")
        print(f"  {sources[stays][row]}: {match.score[row]:.4f} with {of[int(match.row[row])]}")
    found = {kind: thresholds.flags(each.by_detector()) for kind, each in scores.items()}
    power = {kind: share_of(int(flags.sum()), len(flags)) for kind, flags in found.items()}
    base = np.zeros(arguments.slices, dtype=bool)
    base[: round(alarms.value * arguments.slices)] = True
    heads = " | ".join(f"{share:.0%} planted" for share in MIXED)
    print(f"\n| kind | found | 95 % interval | by correlation | by features | {heads} |")
    print("|---|---:|---|---:|---:|" + "---|" * len(MIXED))
    for kind, share in power.items():
        each = scores[kind].by_detector()
        alone = [f"{(each[name] > thresholds.values[name]).mean():.1%}" for name in ("correlation", "features")]
        cells = []
        for part in MIXED:
            flagged = mixed(base, found[kind], part)
            verdict, _ = judge(flagged, alarms, power, max_share=0.01, min_power=0.9, rate=arguments.rate)
            cells.append(f"{flagged.value:.1%}, {verdict}")
        interval = f"{share.low:.1%} to {share.high:.1%}"
        print(f"| {kind} | {share.value:.1%} | {interval} | {' | '.join(alone + cells)} |")


if __name__ == "__main__":
    main()
