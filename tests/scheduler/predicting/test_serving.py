"""A collaborator that stays up: one host after the other, limits, its account, and how it is stopped."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace

import psi
from heterofed import (
    ConfigError,
    HeterofedError,
    NotAllowed,
    OutputError,
    PeerTimeout,
    Settings,
    TaskAborted,
    TaskFailed,
)
from heterofed.frames.messages import PROTOCOL_VERSION, CheckIn, Matching
from heterofed.scheduler.admitting import problem
from heterofed.scheduler.link import Link
from heterofed.scheduler.manifest import read_manifest, write_manifest
from heterofed.scheduler.predicting import opening
from heterofed.scheduler.predicting.audit_log import AuditLog, fingerprint
from heterofed.scheduler.predicting.serve_limits import Allowance, ServeLimits
from heterofed.tasks.directory import open_directory
from heterofed.wire.keys import KeyPair, load_or_create
from psi.messages import Kind
from tests.scheduler.predicting.parties import (
    EVERYBODY,
    TASK,
    Knowing,
    completed_task,
    host_of,
    in_a_thread,
    quick,
    values_of,
)
from tests.tiny import person


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextmanager
def serving(folder: Path, party: Knowing | None = None, **how: Any) -> Iterator[tuple[list[Any], threading.Event]]:
    """Serve beside the body; yield where its outcome will be, and what stops it, which the end of the body does."""
    stop = threading.Event()
    one = party or Knowing(out_dir=folder / "c1", settings=quick())
    with in_a_thread(lambda: one.serve_predictions(stop=stop, **how)) as ends:
        try:
            yield ends, stop
        finally:
            stop.set()


@contextmanager
def others_serving(folder: Path, parties: int, settings: Settings) -> Iterator[None]:
    """Let all collaborators but the first serve beside the body."""
    with ExitStack() as at_the_end:
        for number in range(2, parties):
            party = Knowing(f"c{number}", party=number, out_dir=folder / f"c{number}", settings=settings)
            at_the_end.enter_context(serving(folder, party))
        yield


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(each) for each in path.read_text().splitlines()]


def test_one_host_after_the_other_is_served_and_an_account_is_kept(tmp_path: Path) -> None:
    folder, trained = completed_task()
    audit = tmp_path / "kept" / "audit.jsonl"

    with serving(folder, audit=audit, sessions=2) as (ends, _):
        for ids in (EVERYBODY[:20], [person(30), "nobody"]):
            with host_of(folder).open_predictions(ids=ids) as predictions:
                found = values_of(predictions)
                assert torch.allclose(found[ids[0]], trained.concluded[ids[0]], atol=1e-6)
        deadline = time.monotonic() + 10
        while not ends and time.monotonic() < deadline:
            time.sleep(0.05)

    assert ends == [2]
    assert stat.S_IMODE(audit.stat().st_mode) == 0o600
    told = lines(audit)
    assert [each["event"] for each in told] == ["opened", "matching", "matched", "asked", "closed"] * 2
    assert [each["declared"] for each in told if "declared" in each] == [20] * 3 + [1] * 3
    assert [each["ids"] for each in told if "ids" in each] == [20] * 3 + [1] * 3
    assert [each["rows"] for each in told if each["event"] == "asked"] == [20, 1]
    assert [each["outcome"] for each in told if each["event"] == "closed"] == ["completed"] * 2
    assert {each["task"] for each in told} == {TASK}
    assert len({each["session"] for each in told}) == 2
    assert all(each["host_key"] and each["host"] == "host" and each["time"] for each in told)
    assert "person" not in audit.read_text()


def test_what_exceeds_the_limits_ends_that_session_at_both_ends_and_no_other(tmp_path: Path) -> None:
    folder, _ = completed_task()
    audit = tmp_path / "audit.jsonl"
    limits = ServeLimits(rows_per_session=30, rows_per_minute=50, sessions_per_minute=3)

    with serving(folder, audit=audit, limits=limits):
        with (
            pytest.raises(TaskAborted, match=r"NotAllowed.*asks for more than 30 rows in a session"),
            host_of(folder).open_predictions() as predictions,
        ):
            values_of(predictions, EVERYBODY[:30])
            values_of(predictions, EVERYBODY[:1])
        with host_of(folder).open_predictions() as predictions:
            values_of(predictions, EVERYBODY[:20])
        with (
            pytest.raises(TaskAborted, match="asks for more than 50 rows in a minute"),
            host_of(folder).open_predictions() as predictions,
        ):
            values_of(predictions, EVERYBODY[:1])
        with (
            pytest.raises(TaskAborted, match="opens more than 3 sessions in a minute"),
            host_of(folder).open_predictions() as predictions,
        ):
            values_of(predictions, EVERYBODY[:1])

    outcomes = [each["outcome"] for each in lines(audit) if each["event"] == "closed"]
    assert [each.partition(":")[0] for each in outcomes] == ["NotAllowed", "completed", "NotAllowed", "NotAllowed"]


@pytest.mark.parametrize(("parties", "protocol"), [(2, "ecdh"), (2, "rsa"), (3, "ecdh")])
def test_a_session_that_asks_about_too_many_ids_is_refused_before_any_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parties: int, protocol: str
) -> None:
    folder, _ = completed_task(parties)
    monkeypatch.setattr("tests.scheduler.predicting.parties.quick", lambda: quick(psi_protocol=protocol))
    audit, settings = tmp_path / "audit.jsonl", quick(psi_protocol=protocol)
    party = Knowing(out_dir=folder / "c1", settings=settings)
    receive, answers = psi.Initiator.receive, [0]

    def counting(run: psi.Initiator, message: bytes) -> Iterator[bytes]:
        answers[-1] += message[1] == Kind.ANSWERS
        return receive(run, message)

    monkeypatch.setattr(psi.Initiator, "receive", counting)

    with (
        others_serving(folder, parties, settings),
        serving(folder, party, audit=audit, limits=ServeLimits(ids_per_session=20)),
    ):
        with host_of(folder, parties).open_predictions(ids=EVERYBODY[:20]) as predictions:
            assert predictions.shared == 20
        answers.append(0)
        with (
            pytest.raises(TaskAborted, match=r"c1, .*NotAllowed.* asks about 21 ids; expected at most 20"),
            host_of(folder, parties).open_predictions(ids=EVERYBODY[:21]),
        ):
            pass

    assert answers[0] and (parties > 2 or not answers[1])  # of three, the other one answers
    told = lines(audit)
    assert [each["event"] for each in told] == ["opened", "matching", "matched", "closed", "opened", "closed"]
    assert [each.get("declared") for each in told] == [None, 20, 20, 20, None, 21]
    assert told[-1]["outcome"].startswith("NotAllowed")


def test_a_host_that_breaks_off_once_it_knows_what_is_shared_is_in_the_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = completed_task()
    audit = tmp_path / "audit.jsonl"
    known_by_then: list[dict[str, Any]] = []

    def keep_it_to_oneself(run: psi.Initiator, shared: Any) -> Any:
        known_by_then.extend(lines(audit))
        assert len(shared) == 20  # all that it wanted to know
        raise TaskFailed("goes away")

    monkeypatch.setattr(psi.Initiator, "reveal", keep_it_to_oneself)
    with (
        serving(folder, audit=audit),
        pytest.raises(TaskFailed, match="goes away"),
        host_of(folder).open_predictions(ids=EVERYBODY[:20]),
    ):
        pass

    assert [each["event"] for each in known_by_then] == ["opened", "matching"]
    assert known_by_then[-1]["declared"] == 20 and known_by_then[0]["host_key"]
    closed = lines(audit)[-1]
    assert (closed["event"], closed["declared"], closed["ids"]) == ("closed", 20, None)  # not 0: nobody knows
    assert closed["outcome"].startswith("TaskAborted")


def test_rows_are_counted_and_noted_before_they_are_answered(tmp_path: Path) -> None:
    folder, _ = completed_task()
    audit = tmp_path / "audit.jsonl"
    seen: list[dict[str, Any]] = []

    class Reading(Knowing):
        """Looks at the account while it answers, and fails."""

        def load_batch(self, ids: list[str]) -> Any:
            seen.extend(lines(audit))
            raise ValueError

    with (
        serving(folder, Reading(out_dir=folder / "c1", settings=quick()), audit=audit),
        pytest.raises(TaskAborted, match="load_batch"),
        host_of(folder).open_predictions() as predictions,
    ):
        values_of(predictions, EVERYBODY[:7])

    assert (seen[-1]["event"], seen[-1]["rows"]) == ("asked", 7)
    closed = lines(audit)[-1]
    assert (closed["requests"], closed["rows"], closed["outcome"].partition(":")[0]) == (1, 7, "TemplateError")


def test_more_rows_at_a_time_than_are_allowed_are_refused_and_fewer_are_not(tmp_path: Path) -> None:
    folder, _ = completed_task()

    with serving(folder, limits=ServeLimits(batch_rows=20)):
        with (
            pytest.raises(TaskAborted, match=r"NotAllowed.*21 rows in one batch; expected at most 20.*batch_size=20"),
            host_of(folder).open_predictions() as predictions,
        ):
            values_of(predictions, batch_size=21)
        with host_of(folder).open_predictions() as predictions:
            assert len(values_of(predictions, batch_size=20)) == len(EVERYBODY)
            assert len(values_of(predictions, EVERYBODY[:5], batch_size=1000)) == 5


def test_one_session_is_accounted_for_as_many_are(tmp_path: Path) -> None:
    folder, _ = completed_task()
    audit = tmp_path / "audit.jsonl"
    party = Knowing(out_dir=folder / "c1", settings=quick())

    with (
        in_a_thread(lambda: party.answer_predictions(audit=audit)) as ends,
        host_of(folder).open_predictions(ids=EVERYBODY[:3]) as predictions,
    ):
        values_of(predictions)

    assert ends[0].rows == 3
    assert [each["event"] for each in lines(audit)] == ["opened", "matching", "matched", "asked", "closed"]


def test_a_host_that_never_came_is_no_event(tmp_path: Path) -> None:
    folder, _ = completed_task()
    audit = tmp_path / "audit.jsonl"

    with pytest.raises(PeerTimeout):
        Knowing(out_dir=folder / "c1", settings=quick(gather_timeout_s="0.3")).answer_predictions(audit=audit)
    assert lines(audit) == []


def test_a_host_that_vanishes_makes_room_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = completed_task()
    monkeypatch.setattr(opening, "BACK_WITHIN_S", 1.0)
    monkeypatch.setattr("heterofed.scheduler.predicting.serving.BACK_WITHIN_S", 1.0)
    audit = tmp_path / "audit.jsonl"

    with serving(folder, audit=audit) as (ends, _):
        silent = host_of(folder).open_predictions()
        predictions = silent.__enter__()
        values_of(predictions)
        link: Link = predictions._party._party_link  # type: ignore[assignment]
        link._transport._inner.close(0.0)  # as if its process were killed
        began = time.monotonic()
        with suppress(HeterofedError, TimeoutError):
            silent.__exit__(TimeoutError, TimeoutError(), None)
        with host_of(folder).open_predictions() as predictions:
            assert len(values_of(predictions)) == len(EVERYBODY)
        assert time.monotonic() - began < 10
        assert not ends

    outcomes = [each["outcome"] for each in lines(audit) if each["event"] == "closed"]
    assert outcomes[-1] == "completed"
    assert outcomes[0].startswith(("PeerGone", "PeerRestarted", "HostMoved"))


def test_a_session_that_fails_in_our_own_code_does_not_end_it(tmp_path: Path) -> None:
    folder, _ = completed_task()

    class Failing(Knowing):
        """Cannot read one row."""

        def load_batch(self, ids: list[str]) -> Any:
            if person(13) in ids:
                raise ValueError
            return super().load_batch(ids)

    with serving(folder, Failing(out_dir=folder / "c1", settings=quick())):
        with pytest.raises(TaskAborted, match="load_batch"), host_of(folder).open_predictions() as predictions:
            values_of(predictions, [person(13)])
        with host_of(folder).open_predictions() as predictions:
            assert list(values_of(predictions, [person(12)])) == [person(12)]


def test_it_stops_in_the_middle_of_a_session_and_the_host_hears_why(tmp_path: Path) -> None:
    folder, _ = completed_task()

    with (
        serving(folder) as (ends, stop),
        pytest.raises(TaskAborted, match="told to stop"),
        host_of(folder).open_predictions() as predictions,
    ):
        values_of(predictions)
        stop.set()
        time.sleep(1.5)
        values_of(predictions)
    assert ends == [0]


def test_a_host_that_says_nothing_for_too_long_is_let_go(tmp_path: Path) -> None:
    folder, _ = completed_task()

    with (
        serving(folder, limits=ServeLimits(idle_s=0.5)),
        pytest.raises(TaskAborted, match="no next request within"),
        host_of(folder).open_predictions() as open_,
    ):
        time.sleep(1.5)
        values_of(open_)


def test_only_the_host_of_the_training_is_answered_unless_its_new_key_is_given(tmp_path: Path) -> None:
    folder, _ = completed_task()
    copy = shutil.copytree(folder / "c1", tmp_path / "c1")
    write_manifest(copy, replace(read_manifest(copy), host_key=KeyPair.generate().public.decode()))
    party = Knowing(out_dir=copy, settings=quick())
    now = load_or_create(quick().home / "keys", "host").public
    audit = tmp_path / "audit.jsonl"

    with (
        in_a_thread(party.answer_predictions) as ends,
        pytest.raises(HeterofedError),
        host_of(folder).open_predictions(wait=1.0),
    ):
        raise AssertionError
    assert isinstance(ends[0], NotAllowed)
    assert "another key than in the training" in str(ends[0]) and "--host-key" in str(ends[0])
    with serving(tmp_path, audit=audit), pytest.raises(HeterofedError), host_of(folder).open_predictions(wait=1.0):
        raise AssertionError
    (refused,) = lines(audit)
    assert (refused["event"], refused["host"], refused["host_key"]) == ("refused", None, fingerprint(now))
    with serving(tmp_path, host_key=now), host_of(folder).open_predictions() as predictions:
        assert values_of(predictions, [person(1)])


def test_a_strangers_key_is_not_noted_as_that_of_the_host_before(tmp_path: Path) -> None:
    folder, _ = completed_task()
    audit, keys = tmp_path / "audit.jsonl", quick().home / "keys"
    right = load_or_create(keys, "host").public
    copy = shutil.copytree(folder / "c1", tmp_path / "c1")
    write_manifest(copy, replace(read_manifest(copy), host_key=right.decode()))

    with serving(tmp_path, audit=audit):
        with host_of(folder).open_predictions() as predictions:
            assert values_of(predictions, [person(1)])
        for each in keys.glob("host*"):
            each.unlink()
        with pytest.raises(HeterofedError), host_of(folder).open_predictions(wait=5.0):
            raise AssertionError

    good, refused = lines(audit)[-2:]
    assert (good["event"], good["host"], good["host_key"]) == ("closed", "host", fingerprint(right))
    stranger = load_or_create(keys, "host").public
    assert (refused["event"], refused["host"], refused["host_key"]) == ("refused", None, fingerprint(stranger))


def test_a_key_that_is_given_is_the_only_one_and_has_to_be_a_key(tmp_path: Path) -> None:
    folder, _ = completed_task()
    party = Knowing(out_dir=folder / "c1", settings=quick())
    other = KeyPair.generate().public

    with (
        in_a_thread(lambda: party.answer_predictions(host_key=other)) as ends,
        pytest.raises(HeterofedError),
        host_of(folder).open_predictions(wait=1.0),
    ):
        raise AssertionError
    assert isinstance(ends[0], NotAllowed) and "another key than the one given" in str(ends[0])
    for wrong in (b"short", "x" * 41, b"\xff" * 40):
        with pytest.raises(ConfigError, match="is no public key"):
            party.answer_predictions(host_key=wrong)
    without = Knowing(out_dir=folder / "c1", settings=quick(encryption="off"))
    with pytest.raises(ConfigError, match="encryption is off"):
        without.serve_predictions(host_key=other.decode())


def test_a_session_without_another_party_can_be_refused(tmp_path: Path) -> None:
    folder, _ = completed_task(3)

    with (
        serving(folder, limits=ServeLimits(all_parties=True)),
        pytest.raises(TaskAborted, match="the session is without c2"),
        host_of(folder, 3).open_predictions(absent="mean", wait=1.5),
    ):
        raise AssertionError


def test_one_process_serves_a_run(tmp_path: Path) -> None:
    folder, _ = completed_task()

    with serving(folder):
        time.sleep(0.5)
        with pytest.raises(ConfigError, match="already runs as c1"):
            Knowing(out_dir=folder / "c1", settings=quick()).serve_predictions()


def test_an_expired_task_that_is_completed_still_predicts(tmp_path: Path) -> None:
    folder, _ = completed_task()
    store = open_directory(quick()).store

    assert store.get(TASK).why_over() is not None
    with serving(folder), host_of(folder).open_predictions(TASK) as predictions:
        assert predictions.shared == len(EVERYBODY)


# --- the account ------------------------------------------------------------------------------------------------------


def test_an_event_is_written_whole_where_the_disk_takes_a_few_bytes_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:5]))
    log = AuditLog(tmp_path / "audit.jsonl", TASK)

    log.note("opened", session="abc")
    log.note("closed", session="abc")
    log.close()

    assert [each["event"] for each in lines(tmp_path / "audit.jsonl")] == ["opened", "closed"]


def test_a_line_that_could_not_be_ended_does_not_spoil_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    write = os.write
    log = AuditLog(path, TASK)
    parts = iter([5])

    def full(descriptor: int, data: bytes) -> int:
        if (part := next(parts, None)) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:part])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError) as caught:
        log.note("opened")
    assert "No space left" in str(caught.value) and "nothing is answered" in str(caught.value)
    assert "recover" not in str(caught.value)
    monkeypatch.setattr(os, "write", write)
    log.note("closed")
    log.close()
    path.write_bytes(path.read_bytes() + b'{"torn')
    again = AuditLog(path, TASK)
    again.note("opened")
    again.close()

    torn, closed, torn_too, opened = path.read_text().splitlines()
    assert (torn, torn_too) == ('{"tim', '{"torn')
    assert [json.loads(each)["event"] for each in (closed, opened)] == ["closed", "opened"]


# --- limits -----------------------------------------------------------------------------------------------------------


def test_the_allowance_is_that_of_the_last_minute() -> None:
    now = [0.0]
    allowance = Allowance(ServeLimits(sessions_per_minute=2, rows_per_minute=100), lambda: now[0])

    allowance.begin_session()
    allowance.ask(60, at_once=1)
    allowance.ask(40, at_once=1)
    with pytest.raises(NotAllowed):
        allowance.ask(1, at_once=1)
    now[0] = 30.0
    allowance.begin_session()
    with pytest.raises(NotAllowed):
        allowance.begin_session()
    now[0] = 60.0
    allowance.begin_session()
    allowance.ask(100, at_once=1)
    with pytest.raises(NotAllowed):
        allowance.ask(1, at_once=1)


def test_the_words_for_one_are_those_of_one() -> None:
    allowance = Allowance(ServeLimits(sessions_per_minute=1, rows_per_session=1))

    allowance.begin_session()
    with pytest.raises(NotAllowed, match="more than 1 session in a minute"):
        allowance.begin_session()
    with pytest.raises(NotAllowed, match="more than 1 row in a session"):
        allowance.ask(2, at_once=1)


@pytest.mark.parametrize(
    "name",
    ["sessions_per_minute", "ids_per_session", "rows_per_minute", "rows_per_session", "batch_rows", "idle_s"],
)
def test_limits_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        ServeLimits(**{name: -1})  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(("ours", "theirs"), [("train", "predict"), ("predict", "train"), ("match", "predict")])
def test_who_comes_for_something_else_is_told_what_the_host_does(ours: Any, theirs: Any) -> None:
    check_in = CheckIn(
        PROTOCOL_VERSION,
        "t",
        "c1",
        bytes(16),
        False,
        False,
        Matching("rsa", "both", False),
        False,
        b"",
        (2,),
        0,
        theirs,
    )

    why = problem(check_in, "c1", "t", ours)

    assert why is not None
    assert "Start both for the same" in why
    assert problem(replace(check_in, purpose=ours), "c1", "t", ours) is None
