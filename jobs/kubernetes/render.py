"""Writes the Kubernetes manifests beside this file from `values.yaml`; a test compares.

Plain Python builds plain objects, PyYAML writes them: what several manifests share is written once.
"""

import re
from pathlib import Path
from typing import Any

import yaml
from parts import Values
from ray_nodes import ray_cluster, ray_job
from services import base, mlflow, postgresql, seaweedfs

HERE = Path(__file__).resolve().parent
HEADER = "# Written by jobs/kubernetes/render.py from values.yaml: change those, not this file.\n"


def render(values: Values, ray_version: str) -> dict[str, str]:
    """Content of every manifest by file name."""
    documents = {
        "base.yaml": base(values),
        "seaweedfs.yaml": seaweedfs(values),
        "mlflow.yaml": [*postgresql(values), *mlflow(values)],
        "raycluster.yaml": [ray_cluster(values, ray_version)],
        **{f"rayjob-{name}.yaml": [ray_job(name, values, ray_version)] for name in values["jobs"]},
    }
    return {
        name: HEADER + "---\n".join(yaml.dump(part, Dumper=_Dumper, sort_keys=False, width=120) for part in parts)
        for name, parts in documents.items()
    }


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True  # anchors would save lines, and nobody reads them


def current() -> dict[str, str]:
    """What the values and the tested versions render to."""
    pins = (HERE.parents[1] / "constraints.txt").read_text()
    (ray_version,) = re.findall(r"^ray==(.+)$", pins, re.MULTILINE)
    return render(yaml.safe_load((HERE / "values.yaml").read_text()), ray_version)


def main() -> None:
    for name, text in current().items():
        (HERE / name).write_text(text)


if __name__ == "__main__":
    main()
