"""(3) Bytes between parties: one contract (`transport`), in one process (`memory`) and between machines (`zeromq`)."""

from heterofed.wire.faulty import FaultyTransport
from heterofed.wire.keys import KeyPair, load_or_create
from heterofed.wire.memory import MemoryHub, MemoryTransport
from heterofed.wire.reliable import ReliableTransport
from heterofed.wire.transport import Buffer, Delivery, Doorkeeper, Transport
from heterofed.wire.zeromq import CollaboratorTransport, HostTransport

__all__ = [
    "Buffer",
    "CollaboratorTransport",
    "Delivery",
    "Doorkeeper",
    "FaultyTransport",
    "HostTransport",
    "KeyPair",
    "MemoryHub",
    "MemoryTransport",
    "ReliableTransport",
    "Transport",
    "load_or_create",
]
