"""Notifies systemd of the service's state (sd_notify(3), sd_watchdog_enabled(3))."""

import logging
import os
import socket

logger = logging.getLogger("serving")


def notify(*assignments: str) -> None:
    """Sends assignments such as READY=1 to the socket that the environment names, if any; a failure is logged."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket, which has no file
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(address)
            sender.sendall("\n".join(assignments).encode())
    except OSError as error:
        logger.warning("Could not notify systemd at %s: %s", os.environ["NOTIFY_SOCKET"], error)


def watchdog_interval() -> float | None:
    """Seconds between the keep-alive messages of this process: half of systemd's limit. None if it asks for none."""
    limit = os.environ.get("WATCHDOG_USEC", "")
    if not limit.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(limit) / 2e6
