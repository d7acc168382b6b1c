"""Every number that a training has reported, kept in its run folder: curves are drawn from it, not from MLflow.

    <run folder>/metrics.jsonl    a line for each report: {"19": {"train/loss": 0.5}, "20": {"train/loss": 0.4}}

The outbox holds a report until MLflow has it; this file keeps it. A line that a killed process left unfinished is
skipped: the training continues from an earlier step and reports those steps again.
"""

import json
from pathlib import Path

from lwddpm.files import writing

Curves = dict[str, list[tuple[int, float]]]  # (optimizer step, value) in order of steps, by metric


class MetricLog:
    """The file of one run folder; rank 0 alone appends to it."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / "metrics.jsonl"

    def append(self, rows: dict[int, dict[str, float]]) -> None:
        """Add the numbers of one report.

        Raises:
            JobError: the disk does not take them.
        """
        # The line break comes first, so that a line cut short by a kill does not swallow the next one.
        line = f"\n{json.dumps(rows, separators=(',', ':'))}".encode()
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as stream:
                stream.write(line)

    def curves(self) -> Curves:
        """Of a step that was reported more than once, the last report counts. Empty where there is no file."""
        values: dict[str, dict[int, float]] = {}
        lines = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        for line in lines:
            try:
                rows = json.loads(line)
            except ValueError:  # empty, or cut short
                continue
            for step, numbers in rows.items():
                for name, value in numbers.items():
                    values.setdefault(name, {})[int(step)] = value
        return {name: sorted(points.items()) for name, points in values.items()}
