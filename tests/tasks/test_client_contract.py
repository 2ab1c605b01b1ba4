"""The client of a hub does what `Tasks` promises, with a real hub behind it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from heterofed.tasks import Tasks
from heterofed.tasks.client import HubClient
from tests.hub.running import RunningHub, running_hub
from tests.tasks.contract import Contract


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("hub"), requests_per_minute=100_000) as running:
        yield running


class TestClient(Contract):
    @pytest.fixture
    def tasks(self, hub: RunningHub) -> Iterator[Tasks]:
        # Somebody new, who sees nothing of what other tests made.
        client = HubClient(hub.url, hub.user_token(f"owner-{secrets.token_hex(4)}", "owner"))
        yield client
        client.close()
