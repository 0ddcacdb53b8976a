"""Brings the workers of a run together before TensorFlow starts, which would wait for a missing one without end.

The chief listens at its own address until every other worker has called, compares their configs, and leaves the address
to TensorFlow's server. The connections stay open for `training.distribute.peers`.
"""

import contextlib
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

from training.distribute.cluster import Cluster, is_loopback, split_address
from training.distribute.peers import Connection, Peers
from training.errors import InputError, TrainingError

_HELLO_SECONDS = 5  # for a caller to say who it is: what calls may be a port scanner
_RETRY_SECONDS = 0.2
_ADVICE = "start all workers, or wait longer with --worker_timeout"


def meet(cluster: Cluster | None, terms: Mapping[str, Any], timeout: float) -> Peers:
    """Waits until all workers are there, and checks that they are about to do the same.

    Args:
        cluster: All workers, and which this process is; None for a process that trains alone.
        terms: What all workers must have alike, as JSON has it: the config's fields.
        timeout: Seconds to wait for the last worker.

    Raises:
        InputError: Two workers' terms differ, or the chief cannot listen at its address.
        TrainingError: A worker did not come up in time.
    """
    if cluster is None:
        return Peers()
    terms = json.loads(json.dumps({"workers": cluster.addresses, **terms}))  # tuples become lists, as on the wire
    if cluster.index:
        return Peers(cluster, {0: _call_chief(cluster, terms, timeout)})
    connections, terms_of = _receive_workers(cluster, timeout)
    try:
        _check(cluster, {0: terms, **terms_of}, connections, timeout)
    except (InputError, TrainingError) as error:
        for connection in connections.values():
            connection.send(refused=str(error), was_given=isinstance(error, InputError))
            connection.close()
        raise
    for connection in connections.values():
        connection.send(welcome=True)
    return Peers(cluster, connections)


def _receive_workers(cluster: Cluster, timeout: float) -> tuple[dict[int, Connection], dict[int, Any]]:
    """The connections and the terms of the workers that call in time."""
    connections: dict[int, Connection] = {}
    terms_of: dict[int, Any] = {}
    deadline = time.monotonic() + timeout
    with _listener(cluster.addresses[0]) as listener:
        while len(connections) < len(cluster.addresses) - 1 and (left := deadline - time.monotonic()) > 0:
            listener.settimeout(left)
            with contextlib.suppress(TimeoutError):
                caller = Connection(listener.accept()[0])
                index, terms = _hello(caller, len(cluster.addresses))
                if index in connections:  # it was started again
                    connections.pop(index).close()
                if index:
                    connections[index], terms_of[index] = caller, terms
                else:
                    caller.close()
    return connections, terms_of


def _hello(caller: Connection, num_workers: int) -> tuple[int, Any]:
    """The index of a caller and its terms; (0, None) where it is no worker of this run."""
    try:
        hello = caller.receive(_HELLO_SECONDS)
        return (hello["worker"], hello["terms"]) if hello["worker"] in range(1, num_workers) else (0, None)
    except (OSError, ValueError, KeyError, TypeError):
        return 0, None


def _listener(address: str) -> socket.socket:
    host, port = split_address(address)
    try:
        if is_loopback(host):
            return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        # Its own name may mean another address to the chief than to the others, so it listens at all it has.
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise InputError(
            f"the chief cannot listen at {address}: {error.strerror}; name a free port of its machine"
        ) from None


def _check(
    cluster: Cluster, terms_of: Mapping[int, Mapping[str, Any]], connections: Mapping[int, Connection], timeout: float
) -> None:
    missing = [cluster.name(index) for index in range(1, len(cluster.addresses)) if index not in connections]
    if missing:
        raise TrainingError(f"{', '.join(missing)} did not come up within {timeout:g} s: {_ADVICE}")
    expected = terms_of[0]
    for index, terms in sorted(terms_of.items()):
        for name in {**expected, **terms}:
            if terms.get(name) != expected.get(name):
                raise InputError(
                    f"{name} is {terms.get(name)!r} on {cluster.name(index)}, but {expected.get(name)!r} on "
                    f"{cluster.name(0)}: start all workers alike"
                )


def _call_chief(cluster: Cluster, terms: Mapping[str, Any], timeout: float) -> Connection:
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        # Who answers may be no chief yet: the server of a run before this one, or a chief that is started again.
        with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as stack:
            connection = Connection(_connect(cluster.addresses[0], left))
            stack.callback(connection.close)
            connection.send(worker=cluster.index, terms=terms)
            answer = connection.receive(timeout + _HELLO_SECONDS)  # the chief may have started later
            if "refused" in answer:
                raise (InputError if answer["was_given"] else TrainingError)(answer["refused"])
            stack.pop_all()
            return connection
        time.sleep(_RETRY_SECONDS)
    raise TrainingError(f"{cluster.name(0)}, the chief, did not answer within {timeout:g} s: {_ADVICE}")


def _connect(address: str, timeout: float) -> socket.socket:
    connection = socket.create_connection(split_address(address), timeout)
    if connection.getsockname() == connection.getpeername():  # a port that is tried again and again meets itself
        connection.close()
        raise ConnectionRefusedError
    return connection
