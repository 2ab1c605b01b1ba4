"""Whatever a link does, messages arrive once, in order, unchanged; whatever is restarted, nobody is mixed up."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heterofed.errors import PeerRestarted, PeerTimeout
from heterofed.wire.faulty import FaultyTransport
from heterofed.wire.memory import MemoryHub
from heterofed.wire.reliable import ReliableTransport
from heterofed.wire.transport import Transport
from tests.wire.contract import HOST, PATIENCE_S, arrival, content
from tests.wire.pairs import Clock, Tap, hear

RATES = st.fixed_dictionaries(
    {name: st.floats(0.0, 0.2) for name in ("drop", "delay", "duplicate", "reorder", "corrupt", "cut")}
)
OTHER = {HOST: "bank", "bank": HOST}
STEP_S = 0.001


class FaultyPair:
    """Two reliable ends over faulty ones, in one thread, in a time of their own."""

    def __init__(self, seed: int, rates: dict[str, dict[str, float]]) -> None:
        self.hub = MemoryHub(HOST, queue_messages=100_000)
        self.clock = Clock()
        self.seeds = random.Random(seed)
        self.rates = rates
        self.ends = {party: self.open(party) for party in (HOST, "bank")}

    def open(self, party: str) -> ReliableTransport:
        inner = FaultyTransport(
            Tap(self.hub.transport(party), self.clock),
            seed=self.seeds.getrandbits(32),
            max_delay_s=10 * STEP_S,
            mend_after_s=20 * STEP_S,
            clock=self.clock,
            **self.rates[party],  # type: ignore[arg-type]  # the rates only
        )
        return ReliableTransport(inner, clock=self.clock, first_probe_s=0.02, most_probe_s=0.1)

    def start_anew(self, party: str) -> None:
        self.ends[party]._inner._inner.close()  # type: ignore[attr-defined]  # as SIGKILL does: nothing is flushed
        self.ends[party] = self.open(party)


@given(
    seed=st.integers(0, 1 << 32),
    rates=st.fixed_dictionaries({HOST: RATES, "bank": RATES}),
    turns=st.lists(st.tuples(st.sampled_from([HOST, "bank"]), st.integers(0, 4), st.integers(0, 5)), max_size=25),
)
@settings(max_examples=60, deadline=None)  # a busy machine is no failure
def test_everything_arrives_once_in_order_and_unchanged(
    seed: int, rates: dict[str, dict[str, float]], turns: list[tuple[str, int, int]]
) -> None:
    pair = FaultyPair(seed, rates)
    sent: dict[str, list[str]] = {HOST: [], "bank": ["the first"]}
    heard: dict[str, list[str]] = {HOST: [], "bank": []}
    pair.ends["bank"].send(HOST, [b"head", b"the first"])
    for party, count, pause in turns:
        for _ in range(count if party == "bank" or heard[HOST] else 0):
            text = f"{len(sent[party])} of {party}" * pair.seeds.randrange(1, 50)
            with contextlib.suppress(PeerTimeout):  # its window is full
                pair.ends[party].send(OTHER[party], [b"head", b"", text.encode()], timeout_s=STEP_S)
                sent[party].append(text)
        pair.clock.now += pause * STEP_S
        heard[party] += hear(pair.ends[party])
    for _ in range(20_000):
        for party, end in pair.ends.items():
            heard[party] += hear(end)
        if all(end.flush(0.0) for end in pair.ends.values()):
            break
        pair.clock.now += STEP_S
    assert heard == {party: sent[OTHER[party]] for party in heard}


class Party:
    """What one party does in a run with restarts: it tells who it is, to whom, and the how manieth message it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.life = 0
        self.others = 0
        self.count = 0
        self.heard: dict[str, list[int]] = defaultdict(list)
        self.last_heard = ""

    def begin(self) -> None:
        """Its own process was started anew."""
        self.life += 1
        self.others = self.count = 0
        self.last_heard = ""

    def say(self, end: Transport) -> None:
        text = f"{self.life}.{self.others} {self.count}"
        try:
            end.send(OTHER[self.name], [b"head", text.encode()], timeout_s=STEP_S)
            self.count += 1
        except PeerTimeout:
            pass  # its window is full
        except PeerRestarted:
            self.hear(["restarted"])

    def hear(self, texts: list[str]) -> None:
        for text in texts:
            if text.endswith("restarted"):
                self.others += 1
                self.count = 0
                self.last_heard = ""
                continue
            session, number = text.split()
            self.last_heard = session
            self.heard[f"{self.life}.{self.others} hears {session}"].append(int(number))


ACTIONS = st.sampled_from(["send", "send", "send", "wait", "wait", "begin again", "start anew"])


@given(
    seed=st.integers(0, 1 << 32),
    rates=st.fixed_dictionaries({HOST: RATES, "bank": RATES}),
    turns=st.lists(st.tuples(st.sampled_from([HOST, "bank"]), ACTIONS), max_size=40),
)
@settings(max_examples=60, deadline=None)  # a busy machine is no failure
def test_after_any_restarts_each_session_is_heard_from_its_beginning_and_the_last_one_whole(
    seed: int, rates: dict[str, dict[str, float]], turns: list[tuple[str, str]]
) -> None:
    pair = FaultyPair(seed, rates)
    parties = {name: Party(name) for name in (HOST, "bank")}

    def pump() -> None:
        for name, end in pair.ends.items():
            parties[name].hear(hear(end))
        pair.clock.now += STEP_S

    for name, action in [("bank", "send"), *turns, ("bank", "send")]:
        met = name == "bank" or parties[HOST].last_heard
        if action == "send" and met:
            parties[name].say(pair.ends[name])
        elif action == "wait":
            for _ in range(pair.seeds.randrange(40)):
                pump()
        elif action == "begin again":
            pair.ends[name].restart()
            parties[name].begin()
        elif action == "start anew":
            pair.start_anew(name)
            parties[name].begin()
    for name in ("bank", HOST, "bank"):  # whoever is still unknown to the other, or forgotten, speaks once more
        for _ in range(2_000):
            pump()
            if all(end.flush(0.0) for end in pair.ends.values()):
                break
        parties[name].say(pair.ends[name])
    for _ in range(20_000):
        pump()
        if all(end.flush(0.0) for end in pair.ends.values()):
            break
    for party in parties.values():
        for numbers in party.heard.values():
            assert numbers == list(range(len(numbers)))
    for name, party in parties.items():
        other = parties[OTHER[name]]
        assert len(party.heard[f"{party.life}.{party.others} hears {other.life}.{other.others}"]) == other.count


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_threads_in_lock_step_and_in_bursts_get_through_a_link_at_its_worst(seed: int) -> None:
    hub = MemoryHub(HOST, queue_messages=8)
    rates = dict.fromkeys(("drop", "delay", "duplicate", "reorder", "corrupt"), 0.2) | {"cut": 0.05}
    ends = {
        party: ReliableTransport(
            FaultyTransport(
                hub.transport(party),
                seed=seed,
                max_delay_s=0.002,
                mend_after_s=0.01,
                **rates,  # type: ignore[arg-type]  # the rates only
            ),
            window_messages=32,
            first_probe_s=0.004,
            most_probe_s=0.02,
        )
        for party in (HOST, "bank")
    }
    heard: dict[str, list[int]] = {HOST: [], "bank": []}

    def talk(party: str, end: Transport) -> None:
        for burst in (1, 1, 1, 12, 1, 3, 30, 1):
            for n in range(burst):
                end.send(OTHER[party], [b"head", b"%d" % n], PATIENCE_S)
            for _ in range(burst):
                heard[party].append(int(content(arrival(end))[1]))
        end.close(PATIENCE_S)

    threads = [threading.Thread(target=talk, args=each) for each in ends.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * PATIENCE_S)
    expected = [n for burst in (1, 1, 1, 12, 1, 3, 30, 1) for n in range(burst)]
    assert heard == {HOST: expected, "bank": expected}
