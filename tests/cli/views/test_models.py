from collections.abc import Callable
from typing import Any

from lwddpm.cli.views import models as views

Printed = Callable[[], str]


def test_models_have_n_beside_their_metrics(printed: Printed) -> None:
    item: dict[str, Any] = {
        "name": "lw-ddpm",
        "version": 1,
        "aliases": ["candidate"],
        "created": "today",
        "run_id": "r",
        "tags": {},
        "withdrawn": 0,
    }
    item |= {"metrics": {"eval/fd_lite0": 12.5, "eval/fd_lite0_floor": 3.25}, "n": {"eval/fd_lite0": 2}}
    views.versions([item])
    assert "fd_lite0 12.5 (n = 2)" in printed()
    views.version(item | {"tags": {}, "promotions": [], "card": ""})
    assert "eval/fd_lite0 │ 12.5 │ 2 │ 3.25" in printed()
