"""A canary: what `cluster.preemption` reads is private to Ray, and a new version may move it."""

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.train import PreemptionInfo
from ray.train.v2._internal.execution import context
from ray.train.v2._internal.execution.preemption import PreemptionContext

import lwddpm
from lwddpm.cluster.preemption import preemption_announced


def test_ray_still_keeps_where_it_is_read_what_it_tells_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "preemption_context" in context.TrainContext.__dataclass_fields__
    told = PreemptionContext()
    monkeypatch.setattr(context, "_train_context", SimpleNamespace(preemption_context=told))
    assert not preemption_announced()
    told.preemption_info = PreemptionInfo(deadline_ms=None, preempted_node_to_ranks={"node": [0]})
    assert preemption_announced()


def test_outside_a_worker_and_on_an_older_ray_nothing_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_train_context", None)
    assert not preemption_announced()
    monkeypatch.setattr(context, "_train_context", SimpleNamespace())
    assert not preemption_announced()


def test_nothing_of_the_platform_needs_private_modules_of_ray_to_be_imported() -> None:
    """Within a function, with a fallback, one may be tried."""
    for path in Path(lwddpm.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "ray":
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                assert not [name for name in names if name.startswith("_")], f"{path}: {ast.unparse(node)}"
