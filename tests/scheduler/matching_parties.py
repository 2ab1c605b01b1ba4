"""Welcomed parties on encrypted sockets of this machine, each in a thread, that match ids and do nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from heterofed import HeterofedError, Settings
from heterofed.frames.messages import Matching
from heterofed.metrics.progress import NoProgress
from heterofed.protocol.phases import Phase, Role
from heterofed.scheduler.link import Link
from heterofed.scheduler.matching import Matched, MatchingJob, match_as_collaborator, match_as_host
from heterofed.simulate.ends import zeromq_ends

HOST = "host"
ENDS_WITHIN_S = 30.0


class Told(NoProgress):
    """Keeps what a party says to its user."""

    def __init__(self, party: str) -> None:
        super().__init__(party)
        self.lines: list[str] = []
        self.counts: list[tuple[int, int]] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def matched(self, done: int, total: int) -> None:
        self.counts.append((done, total))


class Parties:
    """A host and collaborators whose session is open.

    Args:
        keys: feature keys, host first.
        matching: the terms; by default those of two parties, or of a joint run.
        timeouts: a party's own timeout in seconds, where it is not everybody's.
        job: other fields of everybody's MatchingJob.
    """

    def __init__(
        self,
        *keys: str,
        matching: Matching | None = None,
        timeouts: Mapping[str, float] | None = None,
        **job: Any,
    ) -> None:
        self.keys = keys
        self._timeouts = timeouts or {}
        self.matching = matching or Matching("ecdh", "both", len(keys) > 2)
        self.told = {key: Told(key) for key in keys}
        self._job = {"timeout_s": 20.0, **job}
        self._ends = zeromq_ends(keys)
        settings = Settings(rejoin_timeout_s=1.0, notice_every_s=60.0)
        self.links = {
            key: Link(
                self._ends[key],
                Role.HOST if key == keys[0] else Role.COLLABORATOR,
                keys[1:] if key == keys[0] else [keys[0]],
                settings,
                say=self.told[key].say,
            )
            for key in keys
        }
        for link in self.links.values():
            for session in link.sessions.values():
                session.phase = Phase.MATCHING
        # A router only knows whom it has heard, as it has in a session that is open.
        for key in keys[1:]:
            self._ends[key].send(keys[0], [b"here"], 5)
        for _ in keys[1:]:
            assert self._ends[keys[0]].receive(5) is not None

    def job(self, **other: Any) -> MatchingJob:
        return MatchingJob(**{"task_id": "t", "session": bytes(16), "matching": self.matching, **self._job, **other})

    def match(self, ids: Mapping[str, Sequence[str]]) -> dict[str, Matched | HeterofedError]:
        """Let everybody who has ids match them; what each got or raised."""
        ends: dict[str, Matched | HeterofedError] = {}

        def run(key: str) -> None:
            try:
                ends[key] = self.play(key, ids[key])
            except HeterofedError as error:
                ends[key] = error.located(party=key, phase="matching ids")
                self.links[key].abort(error)

        threads = [threading.Thread(target=run, args=(key,), name=key) for key in ids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(ENDS_WITHIN_S)
            assert not thread.is_alive(), f"{thread.name} did not end"
        return ends

    def play(self, key: str, ids: Sequence[str]) -> Matched:
        """One party's part, in the calling thread."""
        patience = {"timeout_s": self._timeouts[key]} if key in self._timeouts else {}
        link, job, told = self.links[key], self.job(**patience), self.told[key]
        if key == self.keys[0]:
            return match_as_host(link, ids, job, told)
        return match_as_collaborator(link, ids, job, told, host=self.keys[0], collaborators=self.keys[1:])

    def close(self) -> None:
        for end in self._ends.values():
            end.close()


@contextmanager
def parties(
    *keys: str,
    protocol: Literal["rsa", "ecdh"] = "ecdh",
    reveal: Literal["both", "initiator", "cardinality"] = "both",
    joint: bool | None = None,
    **job: Any,
) -> Iterator[Parties]:
    """Open parties and close them."""
    matching = Matching(protocol, reveal, len(keys) > 2 if joint is None else joint)
    opened = Parties(*keys, matching=matching, **job)
    try:
        yield opened
    finally:
        opened.close()


def people(*numbers: int) -> list[str]:
    """Ids that no text may show."""
    return [f"person-{number}" for number in numbers]
