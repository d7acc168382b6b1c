"""Which network interface the workers of a group reach each other by.

Gloo listens at the address that the machine's own name resolves to. Many Linux installations have that name in
/etc/hosts as a loopback address, where no other machine reaches it. Ray knows the address by which the nodes do reach
each other. NCCL finds its interface by itself.
"""

import os
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig

_TorchBackend: Any = TorchConfig().backend_cls  # the class itself is private to Ray, this property is not


class GroupConfig(TorchConfig):
    """Ray Train's setup of the process group, on the interfaces that connect the nodes."""

    @property
    def backend_cls(self) -> type["_GroupBackend"]:
        return _GroupBackend


class _GroupBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        if len(set(worker_group.execute(ray.util.get_node_ip_address))) > 1:
            worker_group.execute(use_interface_of_node)
        super().on_start(worker_group, backend_config)


def use_interface_of_node() -> None:
    """Have gloo use the interface that holds the node's address, unless GLOO_SOCKET_IFNAME names another."""
    address = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if address in (entry.address for entry in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
