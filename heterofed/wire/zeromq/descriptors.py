"""Room for connections: how many files and sockets this process may open."""

from __future__ import annotations

import contextlib
import logging

try:
    import resource
except ImportError:  # Windows counts handles in another way
    resource = None  # type: ignore[assignment]  # asked for before each use

PLENTY = 4096
_MOST = 65_536

logger = logging.getLogger(__name__)


def raise_descriptor_limit() -> None:
    """Let this process open as many files and connections as its user may, so that strangers cannot use them up.

    A connection keeps its descriptor until libzmq has seen for 10 s that no handshake comes. Says so in the log if
    there are fewer than 4096 all the same.
    """
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = _MOST if hard == unlimited else min(hard, _MOST)
    if soft != unlimited and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS allows less than its hard limit says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    if soft != unlimited and soft < PLENTY:
        logger.warning(
            "this process may open %d files and connections only; a host that strangers can reach needs %d (ulimit -n)",
            soft,
            PLENTY,
        )
