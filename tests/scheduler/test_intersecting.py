"""The intersection as a task of its own: parties find each other by task id, match and are done."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from heterofed import (
    AlignmentError,
    ConfigError,
    HeterofedError,
    OutputError,
    PeerRestarted,
    RemoteProtocolError,
    Settings,
    TaskAborted,
    TaskFailed,
)
from heterofed.frames.messages import Welcome
from heterofed.scheduler import intersecting
from heterofed.scheduler.checks import MOST_MATCHINGS
from heterofed.scheduler.intersecting import Intersection
from heterofed.scheduler.link import Link
from heterofed.scheduler.matching import Matched
from heterofed.tasks.directory import Directory, host_in, open_directory
from heterofed.tasks.model import PartyStatus, TaskStatus
from tests.forked import Forked
from tests.scheduler.matching_parties import people

PARTY = Path(__file__).with_name("intersecting_party.py")
ENDS_WITHIN_S = 90.0
PATIENT = "patient-4711"


@pytest.fixture
def directory() -> Directory:
    return open_directory(Settings.from_env())


def task_of(directory: Directory, *keys: str) -> str:
    return directory.store.create("psi", keys).id


def settings(**values: Any) -> Settings:
    environment = {**os.environ, **{f"HETEROFED_{name.upper()}": str(value) for name, value in values.items()}}
    return Settings.from_env(environment)


def together(*parts: Intersection) -> list[Matched | HeterofedError]:
    """Run the parties at once, the first as the host; what each got or raised."""
    calls: list[Callable[[], Matched]] = [parts[0].as_host, *(each.as_collaborator for each in parts[1:])]
    ends: list[Matched | HeterofedError] = [HeterofedError("did not end")] * len(parts)

    def run(index: int) -> None:
        try:
            ends[index] = calls[index]()
        except HeterofedError as error:
            ends[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(ENDS_WITHIN_S)
    return ends


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["rsa", "ecdh"])
@pytest.mark.parametrize("pairwise", [False, True], ids=["joint", "pairwise"])
def test_the_task_goes_through_its_life_and_everybody_learns_what_all_have(
    directory: Directory, protocol: str, pairwise: bool
) -> None:
    task_id = task_of(directory, "a", "b", "c")
    way = settings(psi_protocol=protocol, psi_pairwise=int(pairwise))

    ends = together(
        Intersection(task_id, "a", people(*range(40)), settings=way),
        Intersection(task_id, "b", people(*range(10, 60)), settings=way),
        Intersection(task_id, "c", people(*range(30, 90)), settings=way),
    )

    assert ends == [Matched(sorted(people(*range(30, 40))), 10)] * 3
    task = directory.find(task_id)
    assert task.status is TaskStatus.COMPLETED
    assert [party.status for party in task.parties] == [PartyStatus.FINISHED] * 3
    assert host_in(directory.find(task_id)) is None


def test_only_the_number_can_be_revealed_to_both(directory: Directory) -> None:
    task_id, way = task_of(directory, "a", "b"), settings(psi_protocol="ecdh")

    ends = together(
        Intersection(task_id, "a", people(1, 2, 3), reveal="cardinality", settings=way),
        Intersection(task_id, "b", people(2, 3, 4, 5), reveal="cardinality", settings=way),
    )

    assert ends == [Matched(None, 2)] * 2


def test_only_the_host_can_be_told(directory: Directory) -> None:
    task_id = task_of(directory, "a", "b", "c")

    ends = together(
        Intersection(task_id, "a", people(1, 2, 3), reveal="initiator"),
        Intersection(task_id, "b", people(2, 3), reveal="initiator"),
        Intersection(task_id, "c", people(3, 4), reveal="initiator"),
    )

    assert ends == [Matched(people(3), 1), Matched(None, None), Matched(None, None)]


@pytest.mark.parametrize("pairwise", [False, True], ids=["joint", "pairwise"])
def test_nothing_in_common_is_an_error_at_every_party_unless_it_may_be(directory: Directory, pairwise: bool) -> None:
    ids, way = [people(1, 2, 3), people(2, 3, 4), people(4, 5)], settings(psi_pairwise=int(pairwise))
    keys = ("a", "b", "c")
    for may_be in (False, True):
        task_id = task_of(directory, *keys)
        parts = [
            Intersection(task_id, key, each, may_be_empty=may_be, settings=way)
            for key, each in zip(keys, ids, strict=True)
        ]
        ends = together(*parts)

        if may_be:
            assert ends == [Matched([], 0)] * 3
            assert directory.find(task_id).status is TaskStatus.COMPLETED
        else:
            assert [type(each) for each in ends] == [AlignmentError, TaskAborted, TaskAborted]
            for each in ends:
                assert "a, while matching ids: no id is common to all 3 parties; expected at least one." in str(each)
                assert "are common with" not in str(each)
            assert all("ended the task (AlignmentError): a, while" in str(each) for each in ends[1:])  # by link
            assert directory.find(task_id).status is TaskStatus.FAILED


# --- what is refused at the door --------------------------------------------------------------------------------------


def test_ids_that_are_not_in_normal_form_are_refused_with_the_advice(directory: Directory) -> None:
    with pytest.raises(AlignmentError) as caught:
        Intersection(task_of(directory, "a", "b"), "a", [PATIENT, "e\u0301" + PATIENT])

    assert "1 of 2 ids that are not in Unicode normal form C" in str(caught.value)
    assert str(caught.value).endswith("Apply psi.normalise_ids to the id column, in the table too.")
    assert PATIENT not in str(caught.value)


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([PATIENT, "", ""], "2 empty ids"),
        ([PATIENT, PATIENT, "8"], "3 ids of which 1 repeat an earlier one"),
        ([PATIENT, 8], "1 of 2 ids that are no str but int"),
        ([], "no ids"),
    ],
)
def test_ids_that_cannot_be_matched_are_refused_by_their_number(ids: list[Any], text: str) -> None:
    with pytest.raises(AlignmentError, match=f"^ids returned {text}; expected") as caught:
        Intersection("some-task", "a", ids)

    assert PATIENT not in str(caught.value)


def test_a_number_alone_needs_the_curve() -> None:
    with pytest.raises(
        ConfigError, match="only the number of shared ids is to be revealed, by rsa; expected HETEROFED"
    ):
        Intersection("some-task", "a", people(1), reveal="cardinality", settings=settings(psi_protocol="rsa"))


def test_a_number_alone_needs_two_parties(directory: Directory) -> None:
    task_id, way = task_of(directory, "a", "b", "c"), settings(psi_protocol="ecdh")

    for key, take_part in (("a", Intersection.as_host), ("b", Intersection.as_collaborator)):
        with pytest.raises(
            ConfigError, match="only the number of ids that 3 parties share is to be revealed; expected tw"
        ):
            take_part(Intersection(task_id, key, people(1), reveal="cardinality", settings=way))


def test_what_cannot_be_revealed_is_refused() -> None:
    with pytest.raises(ConfigError, match="reveal is 'everybody'; expected one of both, initiator, cardinality"):
        Intersection("some-task", "a", people(1), reveal="everybody")  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("timeout", [(-1, 60), (30, float("nan")), (30, "long")])
def test_timeouts_that_cannot_be_are_refused(timeout: Any) -> None:
    with pytest.raises(ConfigError, match="data_channel_timeout is"):
        Intersection("some-task", "a", people(1), data_channel_timeout=timeout)


def test_other_collaborators_than_the_tasks_are_refused(directory: Directory) -> None:
    part = Intersection(task_of(directory, "a", "b"), "a", people(1))

    with pytest.raises(ConfigError, match="collaborator_ids are b, c; expected b, as the task says"):
        part.as_host(["b", "c"])


@pytest.mark.parametrize(
    ("host", "collaborator", "texts"),
    [
        ({"protocol": "rsa"}, {"protocol": "ecdh"}, ("b would match ids by ecdh: every", "host would do (rsa: every")),
        (
            {"protocol": "ecdh", "reveal": "initiator"},
            {"protocol": "ecdh", "reveal": "cardinality"},
            ("b would match ids by ecdh: both learn how many are shared,", "host would do (ecdh: only the host learns"),
        ),
    ],
    ids=["protocol", "reveal"],
)
def test_terms_that_differ_are_refused_at_the_check_in_and_both_are_told(
    directory: Directory, host: dict[str, Any], collaborator: dict[str, Any], texts: tuple[str, str]
) -> None:
    task_id = task_of(directory, "a", "b")

    def part(key: str, protocol: str, **terms: Any) -> Intersection:
        return Intersection(task_id, key, people(1, 2), settings=settings(psi_protocol=protocol), **terms)

    ends = together(part("a", **host), part("b", **collaborator))

    assert [type(each) for each in ends] == [ConfigError, TaskAborted]
    for each in ends:
        assert str(each).startswith("a, while ")
        assert all(text in str(each) for text in texts)
    task = directory.find(task_id)
    assert task.status is TaskStatus.FAILED
    assert texts[0] in (task.reason or "")


@pytest.mark.parametrize("claimed", [("a", "b"), ("a", "b", "x"), ("a", "b", "b")])
def test_a_host_that_opens_the_session_with_other_parties_is_refused(
    directory: Directory, claimed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With b alone in it, b would mask nothing from the host."""
    send = Link.send

    def sending(self: Link, to: str, message: Any, timeout_s: float = 0.0) -> None:
        if isinstance(message, Welcome) and to == "b":
            message = Welcome(message.nonce, message.session, claimed, 0, 0, False, 0)
        send(self, to, message, timeout_s)

    monkeypatch.setattr(Link, "send", sending)
    task_id = task_of(directory, "a", "b", "c")

    ends = together(*(Intersection(task_id, key, people(1, 2)) for key in "abc"))

    assert isinstance(ends[1], RemoteProtocolError)
    assert "a, while gathering the parties: opened a session of other parties than the task's; exp" in str(ends[1])
    assert not any(isinstance(each, Matched) for each in ends)


@pytest.mark.parametrize("culprit", ["a", "b"])
def test_a_result_is_kept_before_any_other_party_hears_that_this_one_is_done(
    directory: Directory, culprit: str
) -> None:
    """Or one whose disk is full would leave the others with a task that is completed."""
    task_id = task_of(directory, "a", "b")
    kept: dict[str, Any] = {}

    def keep(key: str) -> Callable[[Matched], None]:
        def keeping(matched: Matched) -> None:
            kept[key] = matched.ids
            if key == culprit:
                raise OutputError("the disk is full", party=key)

        return keeping

    way = settings(psi_protocol="ecdh")
    ends = together(*(Intersection(task_id, key, people(1, 2), keep=keep(key), settings=way) for key in "ab"))

    assert kept[culprit] == people(1, 2)
    failed, told = ends if culprit == "a" else ends[::-1]
    assert isinstance(failed, OutputError)
    assert isinstance(told, TaskAborted)
    assert "a file or folder cannot be written" in str(told)
    assert directory.find(task_id).status is TaskStatus.FAILED


def test_a_result_is_kept_once_by_every_party(directory: Directory) -> None:
    task_id = task_of(directory, "a", "b", "c")
    kept: list[Any] = []
    way = settings(psi_protocol="ecdh")

    def keep(matched: Matched) -> None:
        kept.append(matched.ids)

    parts = [Intersection(task_id, key, people(1, 2), keep=keep, settings=way) for key in "abc"]
    ends = together(*parts)

    assert all(isinstance(each, Matched) for each in ends), ends
    assert kept == [people(1, 2)] * 3


@pytest.mark.parametrize("role", ["host", "collaborator"])
def test_ids_are_not_matched_again_and_again_in_one_launch(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    matched: list[int] = []

    def restarted(*arguments: Any, **more: Any) -> Matched:
        matched.append(1)
        raise PeerRestarted("was started anew", party="b" if role == "host" else "a")

    welcome = Welcome(bytes(16), bytes(16), ("a", "b"), 0, 0, False, 0)
    monkeypatch.setattr(intersecting, "match_as_host", restarted)
    monkeypatch.setattr(intersecting, "match_as_collaborator", restarted)
    monkeypatch.setattr(intersecting, "gather", lambda *_, **__: SimpleNamespace(session=bytes(16)))
    monkeypatch.setattr(intersecting, "check_in", lambda *_, **__: (SimpleNamespace(peers=["a"]), welcome))
    task_id = task_of(directory, "a", "b")
    part = Intersection(task_id, "a" if role == "host" else "b", people(1, 2), settings=settings(psi_protocol="ecdh"))

    with pytest.raises(TaskFailed) as caught:
        part.as_host() if role == "host" else part.as_collaborator()

    assert len(matched) == MOST_MATCHINGS == 8
    assert "the ids were to be matched a 9th time; expected at most 8 times in one launch" in str(caught.value)


def test_a_peer_that_declares_more_ids_than_it_may_is_refused(directory: Directory) -> None:
    task_id = task_of(directory, "a", "b")
    way = {"psi_protocol": "ecdh"}

    ends = together(
        Intersection(task_id, "a", people(1, 2), settings=settings(psi_max_ids=5, **way)),
        Intersection(task_id, "b", people(*range(6)), settings=settings(**way)),
    )

    assert isinstance(ends[0], RemoteProtocolError)
    assert str(ends[0]) == (
        "b, while matching ids: declares 6 ids; expected at most 5. "
        "If it may have so many, raise HETEROFED_PSI_MAX_IDS."
    )
    assert isinstance(ends[1], TaskAborted)


def test_as_many_ids_as_a_peer_may_have_are_matched(directory: Directory) -> None:
    task_id = task_of(directory, "a", "b")
    way = settings(psi_protocol="ecdh", psi_max_ids=6)

    ends = together(*(Intersection(task_id, key, people(*range(6)), settings=way) for key in "ab"))

    assert all(isinstance(each, Matched) for each in ends), ends


# --- processes --------------------------------------------------------------------------------------------------------


class Process:
    """A party's process and what it said."""

    def __init__(self, *arguments: object, **environment: str) -> None:
        self.process = Forked(
            PARTY, [*map(str, arguments)], {**os.environ, "HETEROFED_PROGRESS": "plain", **environment}
        )

    def end(self) -> tuple[int, str]:
        """Return the exit code and all output."""
        return self.process.wait(ENDS_WITHIN_S), self.process.said()


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def starting(*arguments: object, **environment: str) -> Process:
        started.append(Process(*arguments, **environment))
        return started[-1]

    yield starting
    for each in started:
        each.process.kill()
        each.process.wait()


@pytest.mark.processes
@pytest.mark.timeout(240)
def test_processes_say_no_size_of_a_pair_even_where_the_host_may_know_it(
    directory: Directory, start: Callable[..., Process]
) -> None:
    task_id = task_of(directory, "a", "b", "c")
    way = {"HETEROFED_PSI_PAIRWISE": "1"}
    started = [
        start("host", task_id, "a", 100, 300, **way),
        start("collaborator", task_id, "b", 150, 350, **way),
        start("collaborator", task_id, "c", 298, 400, **way),
    ]

    for process in started:
        code, output = process.end()
        assert code == 0, output
        *lines, learnt = output.splitlines()
        assert json.loads(learnt) == {"ids": ["298", "299", "300"], "count": 3}
        assert "151" not in "".join(line.partition(" ")[2] for line in lines), "what a and b share"


@pytest.mark.processes
@pytest.mark.timeout(240)
@pytest.mark.parametrize("dying", ["collaborator", "host"])
def test_a_party_that_is_killed_while_ids_are_matched_is_named_to_all_others_in_time(
    directory: Directory, start: Callable[..., Process], dying: str
) -> None:
    keys = ("a", "b") if dying == "host" else ("a", "b", "c")
    task_id, victim = task_of(directory, *keys), keys[dying != "host"]
    way = {"HETEROFED_PSI_PROTOCOL": "ecdh"}
    processes = {
        key: start(
            "host" if key == "a" else "collaborator", task_id, key, 0, 6000, *(["die"] if key == victim else []), **way
        )
        for key in keys
    }
    assert processes[victim].end()[0] == -9
    killed = time.monotonic()

    for key in set(keys) - {victim}:
        code, output = processes[key].end()
        assert code == 1
        assert f"{victim}, while matching ids: its link " in output
        assert "expected a link, or one that is back within 1 s" in output
        assert "Traceback" not in output
        assert "PeerGone" in output
    assert time.monotonic() - killed < 30  # the ends of processes included, on a machine that has much to do


@pytest.mark.processes
@pytest.mark.timeout(240)
@pytest.mark.parametrize("dying", ["collaborator", "host"])
def test_a_party_that_is_killed_while_ids_are_matched_may_be_started_again(
    directory: Directory, start: Callable[..., Process], dying: str
) -> None:
    keys = ("a", "b") if dying == "host" else ("a", "b", "c")
    task_id, victim = task_of(directory, *keys), keys[dying != "host"]
    way = {"HETEROFED_PSI_PROTOCOL": "ecdh", "HETEROFED_REJOIN_TIMEOUT_S": "60"}
    roles = {key: "host" if key == "a" else "collaborator" for key in keys}
    processes = {
        key: start(roles[key], task_id, key, 0, 6000, *(["die"] if key == victim else []), **way) for key in keys
    }
    assert processes[victim].end()[0] == -9
    processes[victim] = start(roles[victim], task_id, victim, 5000, 7000, **way)

    for process in processes.values():
        code, output = process.end()
        assert code == 0, output
        assert json.loads(output.splitlines()[-1])["count"] == 1001
        if process is not processes[victim]:
            assert "the ids are matched anew" in output
    assert directory.find(task_id).status is TaskStatus.COMPLETED
