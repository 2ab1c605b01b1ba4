"""Whether the parties of one machine take more threads than it has cores, and so hold each other up."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from heterofed.cores import cores
from heterofed.training.threads import threads_each
from heterofed.wire.transport import Transport


def on_one_machine(transport: Transport, advertise: str) -> bool:
    """Whether all parties must be on this machine, because the host can be reached from nowhere else.

    Args:
        transport: the host's. One that nobody connects to, as that of parties in one process, which take turns, has no
            endpoint.
        advertise: the address that collaborators are told instead; empty: none.
    """
    endpoint = getattr(transport, "endpoint", "")
    return is_loopback(endpoint) and (not advertise or is_loopback(advertise))


def is_loopback(address: str) -> bool:
    """Whether an address, "127.0.0.1:7000" or "tcp://[::1]:7000", is one that only this machine can reach."""
    name = address.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def crowding(threads: Mapping[str, int]) -> str | None:
    """Return a line for people when the parties take more threads than there are cores.

    Args:
        threads: feature key -> threads that this party computes with.

    Returns:
        None where all is well, and where it could not be better: every party has one thread.
    """
    total, have, fair = sum(threads.values()), cores(), threads_each(len(threads))
    if total <= have or max(threads.values()) <= fair:
        return None
    who = ", ".join(f"{key} {count}" for key, count in threads.items())
    return (
        f"the {len(threads)} parties on this machine compute with {total} threads together ({who}), and it has {have} "
        f"cores: they hold each other up. Set HETEROFED_THREADS={fair} for each of them"
    )
