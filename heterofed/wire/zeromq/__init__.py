"""ROUTER at the host, DEALER at each collaborator, CURVE on: the transport between processes and machines.

Who is who: the gate lets in the keys that the doorkeeper knows, libzmq puts the key on every message that came through
that connection, and the sender of a delivery is the owner of that key. Nothing that a peer writes counts.

For measurements on one machine CURVE can be turned off. Then a party is who its routing id says it is.

Which process: each collaborator transport draws a random routing id and keeps it when it reconnects. The host binds a
party to the routing id it first heard; another one with the same key is a second process, refused while the first
lives.

Alive or not, without a thread: libzmq's heartbeats drop a dead connection, and a monitor says so. A collaborator has
one connection, so that settles it. A host's monitor names a file descriptor only, so there it is a suspicion; a PROBE
that cannot be sent (EHOSTUNREACH) is the proof. A host does not probe without a reason: the peer may be busy for long,
and probes would fill its queue.

What is queued when a connection breaks is lost at both ends, and a break may be too short for either side to notice:
whoever needs every message must number them.
"""

from heterofed.wire.zeromq.collaborator import CollaboratorTransport
from heterofed.wire.zeromq.host import HostTransport
from heterofed.wire.zeromq.sockets import only_loopback

__all__ = ["CollaboratorTransport", "HostTransport", "only_loopback"]
