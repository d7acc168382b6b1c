"""What is installed elsewhere: the wheel alone, without the checkout."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_wheel_runs_shipped_jobs_without_the_checkout(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "dist")]
    subprocess.run(build, check=True, cwd=ROOT, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    shipped = {path.name for path in (ROOT / "jobs").glob("*.yaml")}
    assert {path.name for path in (tmp_path / "site" / "lwddpm" / "bundled" / "jobs").glob("*.yaml")} == shipped
    board = ROOT / "dashboards" / "lwddpm_board"
    needed = {path.relative_to(board) for folder in ("templates", "static") for path in (board / folder).iterdir()}
    packed = tmp_path / "site" / "lwddpm_board"
    assert (packed / "py.typed").exists()
    assert (tmp_path / "site" / "lwddpm" / "py.typed").exists()
    (metadata,) = (tmp_path / "site").glob("lwddpm-*.dist-info")
    assert "Apache License" in (metadata / "licenses" / "LICENSE").read_text()
    assert "License-Expression: Apache-2.0" in (metadata / "METADATA").read_text()
    assert needed <= {path.relative_to(packed) for path in packed.rglob("*")}
    provisioned = tmp_path / "site" / "lwddpm" / "bundled" / "dashboards"
    assert {path.name for path in provisioned.rglob("*.yml")} == {"prometheus.yml"}
    assert (provisioned / "grafana" / "grafana.ini").exists()
    command = [sys.executable, "-m", "lwddpm", "run", "paper", "--set", "data.source=phantom", "--dry-run", "--json"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    output = subprocess.run(command, check=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert json.loads(output.stdout)["parameters"] == 13_341_041
