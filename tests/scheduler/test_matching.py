"""The intersection over links: everybody learns what it is to learn, and who breaks its rules is named."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import pytest

import psi
from heterofed import (
    AlignmentError,
    ConfigError,
    HeterofedError,
    PeerTimeout,
    RemoteProtocolError,
    TaskAborted,
    TaskFailed,
    run_locally,
)
from heterofed.frames.forms import Blob
from heterofed.frames.messages import PairingKey, PairingKeys, PsiPart, StillMatching
from heterofed.scheduler import matching
from heterofed.scheduler.link import Link
from heterofed.scheduler.matching import Matched
from psi.messages import Kind
from psi.telling import OwnItems
from tests.scheduler.matching_parties import Parties, parties, people
from tests.tiny import PEOPLE, Collaborator, Host, person

THREE = {"host": people(1, 2, 3, 4), "c1": people(2, 3, 4, 5), "c2": people(3, 4, 5, 6)}
FOUR = {**THREE, "c3": people(1, 4, 6)}
APART = {"host": people(1, 2, 3), "c1": people(2, 3, 4), "c2": people(4, 5)}
"""No id is common to all three, though the host shares two with c1."""


# --- who learns what --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["rsa", "ecdh"])
@pytest.mark.parametrize("joint", [True, False], ids=["joint", "pairwise"])
@pytest.mark.parametrize("ids", [THREE, FOUR], ids=["three", "four"])
def test_all_parties_learn_what_all_have_however_they_match(
    protocol: Literal["rsa", "ecdh"], joint: bool, ids: dict[str, list[str]]
) -> None:
    common = sorted(set.intersection(*(set(each) for each in ids.values())))

    with parties(*ids, protocol=protocol, joint=joint) as together:
        ends = together.match(ids)

        assert ends == dict.fromkeys(ids, Matched(common, len(common)))
        for told in together.told.values():
            assert all(done <= total or not total for done, total in told.counts)
            assert told.counts[-1][0] == told.counts[-1][1] > 0


@pytest.mark.parametrize("protocol", ["rsa", "ecdh"])
@pytest.mark.parametrize("keys", [("host", "c1"), ("host", "c1", "c2")], ids=["two", "three"])
def test_only_the_host_learns_anything_where_that_is_agreed(
    protocol: Literal["rsa", "ecdh"], keys: tuple[str, ...]
) -> None:
    ids = {key: THREE[key] for key in keys}
    common = sorted(set.intersection(*(set(each) for each in ids.values())))

    with parties(*keys, protocol=protocol, reveal="initiator") as together:
        ends = together.match(ids)

    assert ends.pop("host") == Matched(common, len(common))
    assert list(ends.values()) == [Matched(None, None)] * len(ends)


def test_two_parties_can_learn_how_many_ids_they_share_and_nobody_which() -> None:
    with parties("host", "c1", reveal="cardinality") as together:
        ends = together.match({key: THREE[key] for key in together.keys})

    assert ends == {"host": Matched(None, 3), "c1": Matched(None, 3)}


@pytest.mark.parametrize("protocol", ["rsa", "ecdh"])
@pytest.mark.parametrize("joint", [True, False], ids=["joint", "pairwise"])
def test_nothing_in_common_is_a_result_where_it_may_be(protocol: Literal["rsa", "ecdh"], joint: bool) -> None:
    with parties(*APART, protocol=protocol, joint=joint, may_be_empty=True) as together:
        assert together.match(APART) == dict.fromkeys(APART, Matched([], 0))


def test_the_host_of_a_joint_run_cannot_tell_what_it_shares_with_one_party(monkeypatch: pytest.MonkeyPatch) -> None:
    join = psi.join
    looked = []

    def look_first(runs: Sequence[psi.Initiator]) -> list[str]:
        for run in runs:
            for pairwise in ("intersection", "cardinality"):
                with pytest.raises(psi.NotYet):
                    getattr(run, pairwise)
        common = join(runs)
        looked.append([(run.intersection, run.cardinality) for run in runs])
        return common

    monkeypatch.setattr(psi, "join", look_first)
    with parties(*THREE) as together:
        together.match(THREE)

    assert looked == [[(people(3, 4), 2)] * 2]


def test_a_joint_run_with_nothing_in_common_says_nothing_of_pairs() -> None:
    with parties(*APART) as together:
        ends = together.match(APART)

        assert_all_failed_for_want_of_a_common_id(ends)
        assert together.told["host"].lines == ["matching 3 ids by ecdh: " + JOINTLY]


def test_a_pairwise_run_with_nothing_in_common_tells_the_host_alone_what_pairs_share() -> None:
    with parties(*APART, joint=False) as together:
        ends = together.match(APART)

        assert_all_failed_for_want_of_a_common_id(ends)
        assert together.told["host"].lines == [
            "matching 3 ids by ecdh: every party learns which are shared",
            "2 of 3 ids are common with c1",
            "0 of 3 ids are common with c2",
        ]
        for key in ("c1", "c2"):
            assert together.told[key].lines == [
                f"matching {len(APART[key])} ids by ecdh: every party learns which are shared"
            ]


JOINTLY = "every party learns which are shared, nobody what two parties share"


def assert_all_failed_for_want_of_a_common_id(ends: dict[str, Matched | HeterofedError]) -> None:
    reason = (
        "no id is common to all 3 parties; expected at least one. Check that every party writes its ids alike: "
        "same letters, same zeros, no spaces."
    )
    host = ends["host"]
    assert isinstance(host, AlignmentError)
    assert str(host) == f"host, while matching ids: {reason}"
    for key in ("c1", "c2"):
        assert isinstance(ends[key], TaskAborted)
        assert str(ends[key]) == f"host, while matching ids: ended the task (AlignmentError): {host}"


# --- in training ------------------------------------------------------------------------------------------------------


class Some(Collaborator):
    """Lacks every id whose number its own number divides."""

    def load_local_ids(self) -> list[str]:
        return [person(row) for row in range(PEOPLE) if row % (self.party + 1)]


@pytest.mark.parametrize("number", [2, 3, 4])
@pytest.mark.parametrize("protocol", ["rsa", "ecdh"])
@pytest.mark.parametrize("pairwise", ["0", "1"], ids=["joint", "pairwise"])
def test_training_is_on_what_all_parties_have_however_they_match(
    number: int, protocol: str, pairwise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HETEROFED_PSI_PROTOCOL", protocol)
    monkeypatch.setenv("HETEROFED_PSI_PAIRWISE", pairwise)
    host = Host(parties=number, max_rounds=1, log_rounds=0)
    others = [Some(f"c{index}", party=index) for index in range(1, number)]

    run_locally(host, *others, transport="zeromq")

    common = [person(row) for row in range(PEOPLE) if all(row % (index + 1) for index in range(1, number))]
    for party in (host, *others):
        assert list(party.id_intersection) == common


def test_nothing_in_common_ends_training_before_it_begins() -> None:
    class Stranger(Collaborator):
        def load_local_ids(self) -> list[str]:
            return ["nobody-else"]

    with pytest.raises(AlignmentError, match=r"^host, while matching ids: no id is common to all 3 parties; expected"):
        run_locally(Host(parties=3), Collaborator("c1"), Stranger("c2"))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"PROTOCOL": "ecdh"},
            f"c1 would match ids by ecdh: {JOINTLY}; expected what the host would do (rsa: {JOINTLY}",
        ),
        (
            {"PAIRWISE": "1"},
            f"c1 would match ids by rsa: {JOINTLY.split(',')[0]}; expected what the host would do (rsa: ",
        ),
    ],
    ids=["protocol", "pairwise"],
)
def test_parties_that_would_match_differently_are_told_both_ways(
    settings: dict[str, str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [Collaborator("c2", party=2)]
    host = Host(parties=3)
    for name, value in settings.items():
        monkeypatch.setenv(f"HETEROFED_PSI_{name}", value)
    others.insert(0, Collaborator("c1", party=1))

    with pytest.raises(ConfigError) as caught:
        run_locally(host, *others)

    assert str(caught.value).startswith("host, while ")
    assert text in str(caught.value)
    assert "Agree on HETEROFED_PSI_PROTOCOL and HETEROFED_PSI_PAIRWISE, and on who" in str(caught.value)


# --- who does its work when -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["rsa", "ecdh"])
def test_a_collaborator_tells_all_of_its_own_ids_while_it_waits_for_the_host(protocol: Literal["rsa", "ecdh"]) -> None:
    ids = [f"id-{number}" for number in range(1500)]
    with parties("host", "c1", protocol=protocol, timeout_s=5) as together:
        player = threading.Thread(target=play_until_aborted, args=(together, "c1", ids))
        player.start()
        told = 0
        while told < len(ids):
            part = next_part(together)
            if part[1] == Kind.TAGS:
                told += (len(part) - 19 - 16) // 16
            else:
                assert part[1] == Kind.OFFER

        together.links["host"].abort(TaskFailed("enough"))
        player.join(10)
    assert told == len(ids)


def test_a_question_of_the_host_is_answered_before_the_work_on_own_ids_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = [f"id-{number}" for number in range(20 * 1024)]
    asked = threading.Event()
    advance = psi.Responder.advance

    def advancing(self: psi.Responder) -> Iterator[bytes]:
        asked.wait(10)
        return advance(self)

    monkeypatch.setattr(psi.Responder, "advance", advancing)
    with parties("host", "c1", timeout_s=5) as together:
        player = threading.Thread(target=play_until_aborted, args=(together, "c1", ids))
        player.start()
        run = psi.Initiator(people(1, 2), task="t", session=bytes(16) + b"c1", protocol="ecdh")
        (question,) = run.receive(next_part(together))
        together.links["host"].send("c1", PsiPart(Blob(question)), 5)
        asked.set()

        before = 0
        while next_part(together)[1] != Kind.ANSWERS:
            before += 1
        together.links["host"].abort(TaskFailed("enough"))
        player.join(10)
    assert before < 10, "of 20 messages about its own ids"


def play_until_aborted(together: Parties, key: str, ids: Sequence[str]) -> None:
    with pytest.raises(TaskAborted, match="enough"):
        together.play(key, ids)


def next_part(together: Parties) -> bytes:
    _, message = together.links["host"].expect(PsiPart, from_=["c1"], waiting_for="part", timeout_s=10)
    return bytes(message.payload.data)


@pytest.mark.parametrize("silent", ["host", "c1"])
def test_a_party_that_says_nothing_is_named_within_the_deadline(silent: str) -> None:
    with parties("host", "c1", "c2", timeout_s=2, joint=False) as together:
        ends = together.match({key: people(1, 2) for key in together.keys if key != silent})

    awaited = "part of the intersection"
    if silent == "host":
        for key in ("c1", "c2"):
            assert isinstance(ends[key], PeerTimeout)
            assert str(ends[key]).startswith(
                f"host, while matching ids: no {awaited} within 2 s; expected it from host."
            )
    else:
        assert isinstance(ends["host"], PeerTimeout)
        assert str(ends["host"]).startswith(f"c1, while matching ids: no {awaited} within 2 s; expected it from c1.")
        assert isinstance(ends["c2"], TaskAborted)
        assert "c1, while matching ids: no " in str(ends["c2"])


def test_who_is_done_waits_longer_than_its_timeout_for_others_that_are_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    receive = psi.Responder.receive

    def slow(self: psi.Responder, message: bytes) -> Iterator[bytes]:
        if threading.current_thread().name == "c1" and message[1] == Kind.BLINDED:
            time.sleep(0.8)
        return receive(self, message)

    monkeypatch.setattr(psi.Responder, "receive", slow)
    ids = [f"id-{number}" for number in range(3 * 1024)]
    with parties("host", "c1", "c2", timeout_s=1.5, joint=False) as together:
        ends = together.match({"host": ids, "c1": ids[:5], "c2": ids[:5]})

    assert ends == dict.fromkeys(ends, Matched(ids[:5], 5))


def test_a_collaborator_with_many_ids_says_that_it_works_while_it_has_nothing_to_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evaluate = OwnItems._evaluate

    def slow(self: OwnItems, count: int) -> None:
        if threading.current_thread().name == "c1":
            time.sleep(0.6)
        evaluate(self, count)

    monkeypatch.setattr(OwnItems, "_evaluate", slow)
    ids = [f"id-{number}" for number in range(4 * 1024)]
    with parties("host", "c1", "c2", timeout_s=1.5, joint=True) as together:
        ends = together.match({"host": ids[:5], "c1": ids, "c2": ids[:5]})

    assert ends == dict.fromkeys(ends, Matched(ids[:5], 5))


# --- who waits, and who breaks the rules ------------------------------------------------------------------------------


class Crowd(Collaborator):
    """Has many more ids than the others, so that its part of the intersection takes longer."""

    def load_local_ids(self) -> list[str]:
        return [*super().load_local_ids(), *(f"stranger-{number}" for number in range(1500))]


def test_a_collaborator_that_is_done_is_told_to_wait_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    send = Link.send

    def watch(self: Link, to: str, message: Any, timeout_s: float = 0.0) -> None:
        if isinstance(message, StillMatching) and to != "host":
            told.append(to)
        send(self, to, message, timeout_s)

    monkeypatch.setattr(Link, "send", watch)
    monkeypatch.setattr(matching, "REASSURE_EVERY_S", 0.0)

    run_locally(Host(parties=3, max_rounds=1), Collaborator("c1", party=1), Crowd("c2", party=2))

    assert len(set(told)) == 1, "one was done before the other"


def test_a_collaborator_that_breaks_the_rules_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def garbage(self: psi.Responder) -> Iterator[bytes]:
        yield b"garbage"

    monkeypatch.setattr(psi.Responder, "start", garbage)

    with pytest.raises(RemoteProtocolError, match=r"^c1, while matching ids: broke the rules of the inter"):
        run_locally(Host(), Collaborator())


def test_a_host_that_breaks_the_rules_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def garbage(self: psi.Initiator, message: bytes) -> Iterator[bytes]:
        yield b"garbage"

    monkeypatch.setattr(psi.Initiator, "receive", garbage)

    with pytest.raises(RemoteProtocolError, match=r"^host, while matching ids: broke the rules of the intersection"):
        run_locally(Host(), Collaborator())


def test_a_fault_of_our_own_is_not_blamed_on_the_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(self: psi.Responder, message: bytes) -> Iterator[bytes]:
        raise psi.ComputeFault("a power did not verify")

    monkeypatch.setattr(psi.Responder, "receive", fault)

    with pytest.raises(TaskFailed, match=r"^c1, while matching ids: the intersection failed at this party \(ComputeF"):
        run_locally(Host(), Collaborator())


def test_a_fault_of_our_own_at_the_start_is_not_blamed_on_the_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(self: psi.Responder) -> Iterator[bytes]:
        raise psi.ComputeFault("a power did not verify")

    monkeypatch.setattr(psi.Responder, "start", fault)

    with pytest.raises(TaskFailed, match=r"^c1, while matching ids: the intersection failed at this party \(ComputeF"):
        run_locally(Host(), Collaborator())


# --- what a host does to the keys that its collaborators agree on ----------------------------------------------------


def swapped(publics: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return publics[::-1]


def forged(publics: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(secrets.token_bytes(31) + b"\0" for _ in publics)


def dropped(publics: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return publics[:1]


def none_at_all(publics: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return ()


def added(publics: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return (*publics, psi.PairKey().public)


def the_first_for_all(publics: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """c1 would mask nothing, and the host could read what c1 shares with it."""
    return publics[:1] * len(publics)


def the_last_two_alike(publics: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """To c1 the masks of both would cancel."""
    return (*publics[:-1], publics[-2])


@pytest.mark.parametrize(
    "change", [swapped, forged, dropped, none_at_all, added, the_first_for_all, the_last_two_alike]
)
def test_a_host_that_passes_on_other_keys_than_it_was_given_is_refused_by_name(
    change: Callable[[tuple[bytes, ...]], tuple[bytes, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    alter(monkeypatch, PairingKeys, lambda message: PairingKeys(change(message.publics)))

    with parties(*FOUR) as together:
        ends = together.match(FOUR)

    assert isinstance(ends["c1"], RemoteProtocolError)
    assert str(ends["c1"]) == (
        "host, while matching ids: passed on other keys than the collaborators gave. Do not trust this host."
    )
    assert not any(isinstance(each, Matched) for each in ends.values())


@pytest.mark.parametrize("key", [bytes(32), b"\xff" * 32], ids=["of small order", "out of range"])
def test_a_key_that_would_hide_nothing_is_refused_and_the_host_named_who_sent_it(
    key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    alter(monkeypatch, PairingKeys, lambda message: PairingKeys((*message.publics[:-1], key)))

    with parties(*THREE) as together:
        ends = together.match(THREE)

    assert isinstance(ends["c1"], RemoteProtocolError)
    assert str(ends["c1"]).startswith(
        "host, while matching ids: broke the rules of the intersection (BadElement: a res"
    )


def test_a_collaborator_that_gives_the_key_of_another_as_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    one = psi.PairKey().public
    alter(monkeypatch, PairingKey, lambda message: PairingKey(one))

    with parties(*FOUR) as together:
        ends = together.match(FOUR)

    assert not any(isinstance(each, Matched) for each in ends.values())


@pytest.mark.parametrize(
    ("kind", "waiting", "who", "awaited"),
    [
        (PairingKeys, ["c1", "c2"], "host", "keys for the intersection"),
        (PairingKey, ["host"], "c1, c2", "key for the intersection"),
    ],
    ids=["host", "collaborators"],
)
def test_keys_that_do_not_come_are_missed_within_the_deadline(
    kind: type[Any], waiting: list[str], who: str, awaited: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alter(monkeypatch, kind, lambda message: None)

    # Only those who wait for the keys are impatient: the others wait for what follows from them.
    with parties(*THREE, timeouts=dict.fromkeys(waiting, 1.0)) as together:
        ends = together.match(THREE)

    texts = [str(each) for each in ends.values() if isinstance(each, PeerTimeout)]
    assert any(text.startswith(f"{who}, while matching ids: no {awaited} within 1 s; expected it") for text in texts)


# --- what changes on the way ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["rsa", "ecdh"])
@pytest.mark.parametrize(("sender", "reader"), [("host", "c1"), ("c1", "host")])
def test_results_that_differ_are_an_alignment_error_that_names_the_peer(
    protocol: Literal["rsa", "ecdh"], sender: str, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_another_result(message: PsiPart) -> PsiPart:
        part = bytes(message.payload.data)
        return PsiPart(Blob(part[:-1] + bytes([part[-1] ^ 1]))) if part[1] == Kind.CONFIRM else message

    alter(monkeypatch, PsiPart, of_another_result, by=sender)

    with parties("host", "c1", protocol=protocol) as together:
        ends = together.match({key: THREE[key] for key in ("host", "c1")})

    assert isinstance(ends[reader], AlignmentError)
    assert str(ends[reader]).startswith(
        f"{sender}, while matching ids: {sender} and this party hold different intersections (the parties' results"
    )
    assert str(ends[reader]).endswith("if it happens twice, do not trust this peer or the network.")
    assert not isinstance(ends["host"], Matched)


def alter(
    monkeypatch: pytest.MonkeyPatch, kind: type[Any], change: Callable[[Any], Any], *, by: str | None = None
) -> None:
    """Change what is sent of this kind; None: it is lost."""
    send = Link.send

    def sending(self: Link, to: str, message: Any, timeout_s: float = 0.0) -> None:
        if isinstance(message, kind) and by in (None, self.party):
            message = change(message)
        if message is not None:
            send(self, to, message, timeout_s)

    monkeypatch.setattr(Link, "send", sending)
