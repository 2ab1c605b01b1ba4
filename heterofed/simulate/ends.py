"""The ways between parties of one process: through memory, or real sockets on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from heterofed.wire.keys import KeyPair
from heterofed.wire.memory import MemoryHub
from heterofed.wire.transport import Transport
from heterofed.wire.zeromq import CollaboratorTransport, HostTransport


def memory_ends(keys: Sequence[str]) -> dict[str, Transport]:
    """Return each party's end of queues in this process; the first key is the host's."""
    hub = MemoryHub(host=keys[0])
    return {key: hub.transport(key) for key in keys}


def zeromq_ends(keys: Sequence[str]) -> dict[str, Transport]:
    """Return each party's end of encrypted sockets on this machine; the first key is the host's."""
    pairs = {key: KeyPair.generate() for key in keys}
    host = HostTransport(keys[0], key=pairs[keys[0]], doorkeeper=_Listed({pairs[key].public: key for key in keys[1:]}))
    ends: dict[str, Transport] = {keys[0]: host}
    for key in keys[1:]:
        ends[key] = CollaboratorTransport(
            key, host_party=keys[0], endpoint=host.endpoint, host_public_key=pairs[keys[0]].public, key=pairs[key]
        )
    return ends


@dataclass(frozen=True)
class _Listed:
    """A doorkeeper with a fixed list."""

    parties: dict[bytes, str]

    def party_of(self, public_key: bytes) -> str | None:
        return self.parties.get(public_key)
