"""All benchmarks, one after the other, as one Markdown table: `make bench`.

    python benchmarks/run.py [--source FOLDER]

The preparation benchmark needs a folder of real images; without --source it is left out, and the table says so.
Ratios hold on a shared machine, single figures do not; run it on a quiet one all the same.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def run(script: str, *arguments: str) -> dict[str, Any]:
    """The JSON object that a benchmark prints."""
    print(f"running {script} {' '.join(arguments)}", file=sys.stderr, flush=True)
    command = [sys.executable, str(HERE / script), *arguments, "--json"]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(output.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", help="folder of real images for the preparation benchmark")
    arguments = parser.parse_args()
    print("| ratio | measured | wanted |\n|---|---:|---:|", flush=True)
    _row("images/s of a job / of a bare PyTorch loop", run("platform_speed.py", "overhead")["ratio"], 0.95)
    for name, value in run("training_speed.py")["speedup"].items():
        _row(f"seconds a step of {name} / of the platform, 128x128", value, 2.5)
    for name, value in run("conditional_speed.py").items():
        _row(f"seconds of a {name} (at most)", value, {"t": 1.02, "g": 1.05}[name[0]])
    _row("images/s of 2 workers / of 1, one thread each", run("platform_speed.py", "workers")["ratio"], 1.6)
    _row("DICOM headers a second and core", run("dicom_scan.py")["a second and core"], 1000)
    if arguments.source:
        preparation = run("preparation.py", "--source", arguments.source)
        label = f"seconds of a Pillow loop / of preparing {preparation['images']:,} images, {preparation['cpus']} CPUs"
        _row(label, preparation["ratio"], 1.5)
    else:
        print("| preparation of real images | not measured: give --source (make bench DATA=FOLDER) | 1.5 |")


def _row(name: str, value: float, wanted: float) -> None:
    print(f"| {name} | {value:.2f} | {wanted:g} |", flush=True)


if __name__ == "__main__":
    main()
