"""The way into a cluster of Ray, for servers and for batches."""

import socket
from typing import Any

_SECONDS = 5.0  # for a cluster to take a connection


def connect(address: str, **options: Any) -> None:
    """Joins the cluster at an address; `auto` is the one of this machine, and `local` starts one.

    Raises OSError where nobody listens, ValueError where the address has no port, and whatever Ray raises.
    """
    import ray

    if address not in ("auto", "local"):
        host, _, port = address.rpartition("/")[2].rpartition(":")
        socket.create_connection((host, int(port)), _SECONDS).close()  # Ray itself would try for minutes
    ray.init(address, **options)
