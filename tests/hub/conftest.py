"""The servers that tests of the hub may ask for."""

from __future__ import annotations

from tests.hub.servers import _redis_process, postgresql, redis_server

__all__ = ["_redis_process", "postgresql", "redis_server"]
