"""Workers of several nodes talk over the interfaces that connect those."""

import os
from collections.abc import Callable
from typing import Any

import pytest
import ray
from ray.train.torch import TorchConfig

from lwddpm.cluster.network import GroupConfig


class Group:
    """Workers at these addresses; whatever they are asked they do in this process, at the first one."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    def execute(self, function: Callable[[], Any]) -> list[Any]:
        if function is ray.util.get_node_ip_address:
            return list(self.addresses)
        return [function() for _ in self.addresses]


@pytest.mark.parametrize(
    ("addresses", "given", "expected"),
    [
        (("127.0.0.1", "10.0.0.2"), None, "lo"),
        (("127.0.0.1", "10.0.0.2"), "eth7", "eth7"),
        (("127.0.0.1", "127.0.0.1"), None, None),
    ],
)
def test_the_interface_is_that_of_the_node_where_there_are_several(
    addresses: tuple[str, ...], given: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", given or "")
    if given is None:
        monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: addresses[0])
    monkeypatch.setattr(TorchConfig().backend_cls, "on_start", lambda *arguments: None)
    config = GroupConfig()
    config.backend_cls().on_start(Group(*addresses), config)
    assert os.environ.get("GLOO_SOCKET_IFNAME") == expected
