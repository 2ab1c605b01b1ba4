"""Notifications reach message endpoints, in order and signed; what an endpoint answers decides what follows."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from heterofed.errors import ConfigError
from heterofed.hub.coordinator.endpoints import check_endpoint
from heterofed.hub.coordinator.sender import Sender
from heterofed.hub.coordinator.signing import verify
from heterofed.hub.coordinator.tables import notification_table
from heterofed.hub.coordinator.training import TrainingState
from heterofed.hub.schema import user_table
from heterofed.tasks import TaskStatus
from tests.hub.coordinator.course import HOST, KINDS, SHOP, Course
from tests.hub.coordinator.endpoint import Endpoint, endpoint
from tests.hub.servers import free_port

SECRET = "sixteen letters.."  # noqa: S105 - of a test


@pytest.fixture
def shop(course: Course) -> Iterator[Endpoint]:
    """Where the party `shop` wants to be told."""
    with endpoint() as there:
        course.add_user("sam", party=SHOP, url=there.url, secret=SECRET)
        yield there


def quick(course: Course) -> Sender:
    return Sender(course.database, attempts=3, timeout_s=5.0, backoff_s=0.01)


def send_all(course: Course, sender: Sender, rounds: int = 20) -> None:
    """Send until nothing waits any more, and handle what that leads to."""
    for _ in range(rounds):
        course.carry_out(sender.send_due())
        if "PENDING" not in {row.state for row in course.notifications()}:
            return
        time.sleep(0.02)
    raise AssertionError([(row.notification_type, row.state, row.attempts) for row in course.notifications()])


def states(course: Course, party: str | None = SHOP) -> list[str]:
    return [row.state for row in course.notifications() if row.party == party]


def test_a_notification_is_json_of_its_type_body_and_training(course: Course, shop: Endpoint) -> None:
    """Item 51."""
    course.start()

    send_all(course, quick(course))

    assert shop.got[1].json == {
        "notification_type": "UPDATE_ROUND_START",
        "body": {"round": 1},
        "training_uuid": course.id,
    }
    assert shop.types() == ["TRAINING_START", "UPDATE_ROUND_START"]
    assert states(course) == ["SENT", "SENT"]
    assert states(course, HOST) == ["STREAM", "STREAM"]


def test_what_arrives_is_signed_with_the_endpoint_s_secret(course: Course, shop: Endpoint) -> None:
    course.start()

    send_all(course, quick(course))

    for request in shop.got:
        assert verify(SECRET, request.headers, request.body)
        assert not verify("another", request.headers, request.body)
        assert request.headers["Content-Type"] == "application/json"
    numbers = [request.headers["X-Heterofed-Delivery"] for request in shop.got]
    assert numbers == [str(row.number) for row in course.notifications() if row.party == SHOP]


def test_what_was_sent_is_not_sent_again(course: Course, shop: Endpoint) -> None:
    course.start()
    for _ in range(3):
        send_all(course, quick(course))

    assert len(shop.got) == 2


def test_two_senders_at_a_time_send_each_notification_once(course: Course, shop: Endpoint) -> None:
    course.start()
    first, second = quick(course), quick(course)
    taken = first._claim()

    second.send_due()

    assert shop.got == []
    assert [letter.attempts for letter in taken] == [1]


def test_a_sender_that_dies_at_it_leaves_the_notification_for_the_next(course: Course, shop: Endpoint) -> None:
    course.start()
    quick(course)._claim()
    with course.database.transaction(write=True) as connection:
        connection.execute(notification_table.update().values(due_at=0.0))

    send_all(course, quick(course))

    assert shop.types() == ["TRAINING_START", "UPDATE_ROUND_START"]


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_an_endpoint_that_cannot_now_is_tried_again_and_order_is_kept(
    course: Course, shop: Endpoint, status: int
) -> None:
    """Item 53."""
    shop.answers = [status, status, 200]
    course.start()

    send_all(course, quick(course))

    assert shop.types() == ["TRAINING_START"] * 3 + ["UPDATE_ROUND_START"]
    assert states(course) == ["SENT", "SENT"]
    assert course.training().state is TrainingState.ONGOING


def test_between_two_attempts_there_is_twice_the_time(course: Course, shop: Endpoint) -> None:
    shop.answers = [500]
    course.start()
    sender = Sender(course.database, attempts=6, backoff_s=100.0)
    waits = []
    for _ in range(3):
        sender.send_due()
        (first, *_) = [row for row in course.notifications() if row.party == SHOP]
        waits.append(round((first.due_at - time.time()) / 100))
        with course.database.transaction(write=True) as connection:
            connection.execute(notification_table.update().values(due_at=0.0))

    assert waits == [1, 2, 4]


def test_a_party_that_cannot_be_reached_before_it_began_fails_the_task(course: Course) -> None:
    """Item 53. In the source the state never became ERROR."""
    course.add_user("sam", party=SHOP, url=f"http://127.0.0.1:{free_port()}/", secret=SECRET)
    course.start()

    send_all(course, quick(course))

    assert course.training().state is TrainingState.ERROR
    assert course.training().cause == "shop: its message endpoint cannot be reached (ConnectError)"
    assert course.store.get(course.id).status is TaskStatus.FAILED
    assert course.told(HOST)[-1] == ("TASK_FAILED", 0)
    assert states(course) == ["FAILED", "FAILED", "FAILED"]
    assert [row.attempts for row in course.notifications() if row.party == SHOP] == [3, 0, 3]


def test_parties_that_train_already_go_on_though_one_cannot_be_told(course: Course, shop: Endpoint) -> None:
    """Item 53, where the hub must not stop what it does not run: the training is ERROR, its task goes on."""
    course.start()
    send_all(course, quick(course))
    course.move(TaskStatus.ONGOING)
    shop.answers = [500]
    course.all_say(KINDS.ROUND_FINISHED, 1)

    send_all(course, quick(course))

    assert course.training().state is TrainingState.ERROR
    assert course.store.get(course.id).status is TaskStatus.ONGOING
    course.move(TaskStatus.COMPLETED)
    assert course.training().state is TrainingState.COMPLETED


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_a_rejection_removes_the_party_and_the_others_hear_of_it(course: Course, shop: Endpoint, status: int) -> None:
    """Item 52. In the source nobody ever heard CLIENT_REMOVED."""
    course.add_user("boss", role="owner")
    shop.answers = [status]
    course.start()

    send_all(course, quick(course))

    assert len(shop.got) == 1
    assert states(course) == ["REJECTED", "REJECTED"]
    assert course.training().awaited == (HOST,)
    assert course.told(HOST)[-1] == ("CLIENT_REMOVED", 0)
    assert course.told(None) == [("CLIENT_REMOVED", 0)]
    reason = f"its message endpoint answered {status}"
    assert course.bodies()[-1] == {"round": 0, "party": SHOP, "reason": reason}
    assert course.training().state is TrainingState.ONGOING
    assert course.store.events(course.id)[-1].text == f"shop is not waited for any more: {reason}"


def test_a_rejection_closes_the_round_that_waited_only_for_that_party(course: Course, shop: Endpoint) -> None:
    """Item 52. In the source the round hung."""
    course.start()
    course.say(HOST, KINDS.ROUND_FINISHED, 1)
    course.say(HOST, KINDS.ROUND_FINISHED, 2)
    shop.answers = [403]
    assert course.training().round == 0

    send_all(course, quick(course))

    assert course.training().round == 2
    assert course.told(HOST)[2:] == [("CLIENT_REMOVED", 0), ("MODEL_TEST_ROUND", 1), ("MODEL_TEST_ROUND", 2)]


def test_a_party_that_was_removed_may_train_on_and_nobody_waits_for_it(course: Course, shop: Endpoint) -> None:
    shop.answers = [403]
    course.start()
    send_all(course, quick(course))

    course.say(SHOP, KINDS.ROUND_FINISHED, 1)
    assert course.training().round == 0
    course.say(HOST, KINDS.ROUND_FINISHED, 1)

    assert course.training().round == 1
    assert len(course.told(SHOP)) == 2


def test_a_task_whose_every_party_rejects_is_given_up(course: Course, shop: Endpoint) -> None:
    with endpoint() as bank:
        course.add_user("bea", party=HOST, url=bank.url)
        bank.answers = shop.answers = [403]
        course.start()

        send_all(course, quick(course))

    assert course.training().state is TrainingState.ERROR
    assert course.training().cause == "no party is left that could be waited for"


def test_an_owner_who_cannot_be_told_stops_nothing(course: Course) -> None:
    with endpoint() as boss:
        boss.answers = [500]
        course.add_user("boss", role="owner", url=boss.url)
        course.start()
        course.move(TaskStatus.ONGOING, TaskStatus.COMPLETED)
        send_all(course, quick(course))

    assert states(course, None) == ["FAILED"]
    assert course.training().state is TrainingState.COMPLETED


@pytest.mark.parametrize("status", [403, 500])
def test_an_owner_who_does_not_hear_of_a_removal_is_not_removed_too(
    course: Course, shop: Endpoint, status: int
) -> None:
    with endpoint() as boss:
        boss.answers, shop.answers = [status], [403]
        course.add_user("boss", role="owner", url=boss.url)
        course.start()
        send_all(course, quick(course))

    assert states(course, None) == ["REJECTED" if status == 403 else "FAILED"]
    assert course.training().state is TrainingState.ONGOING
    assert course.training().awaited == (HOST,)


def test_a_redirect_is_not_followed(course: Course, shop: Endpoint) -> None:
    with endpoint() as elsewhere:
        shop.answers, shop.location = [307], elsewhere.url
        course.start()

        send_all(course, quick(course))

        assert elsewhere.got == []
    assert states(course) == ["REJECTED", "REJECTED"]


def test_an_answer_that_drips_ends_at_the_deadline(course: Course, shop: Endpoint) -> None:
    """A timeout for each byte would wait for ever."""
    shop.drips = True
    course.start()
    began = time.monotonic()

    Sender(course.database, timeout_s=0.3, backoff_s=100.0).send_due()

    assert time.monotonic() - began < 8.0  # all of it takes eleven
    causes = [row.cause for row in course.notifications() if row.party == SHOP]
    assert causes == ["its message endpoint did not answer within 0.3 s", None]


def test_one_slow_endpoint_does_not_hold_up_the_others(course: Course, shop: Endpoint) -> None:
    shop.drips = True
    with endpoint() as bank:
        course.add_user("bea", party=HOST, url=bank.url)
        course.start()
        Sender(course.database, timeout_s=0.3, backoff_s=100.0).send_due()

        assert bank.types() == ["TRAINING_START", "UPDATE_ROUND_START"]


def test_an_endpoint_that_is_taken_away_leaves_the_stream(course: Course, shop: Endpoint) -> None:
    course.start()
    with course.database.transaction(write=True) as connection:
        connection.execute(user_table.update().values(message_endpoint=sa.null()))

    send_all(course, quick(course))

    assert states(course) == ["STREAM", "STREAM"]
    assert shop.got == []


def test_neither_proxies_nor_passwords_of_the_hub_s_user_reach_an_endpoint(
    course: Course, shop: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hidden\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    course.start()

    send_all(course, quick(course))

    assert len(shop.got) == 2
    assert all("Authorization" not in request.headers for request in shop.got)


def test_a_secret_is_in_no_text_of_what_goes_wrong(
    course: Course, shop: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    shop.answers = [403]
    course.start()
    send_all(course, quick(course))

    rows = "".join(str(row) for row in course.notifications())
    assert SECRET not in caplog.text + rows + str(course.training().cause)


@pytest.mark.parametrize(
    "url", ["http://party.example/told", "https://10.0.0.7:8443/a/b?c=d", "http://[::1]:9/", "http://localhost"]
)
def test_an_http_address_can_be_an_endpoint(url: str) -> None:
    assert check_endpoint(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "party.example",
        "ftp://party.example/",
        "file:///etc/passwd",
        "gopher://party.example",
        "http://",
        "http:///told",
        "http://me:hidden@party.example/",
        "http://me@party.example/",
        "http://party.example/#part",
        "http://party.example/a b",
        "http://party.example/\n",
        "http://party.example:port/",
        "http://" + "a" * 1000,
        b"http://party.example/",
        None,
    ],
)
def test_what_is_no_plain_http_address_cannot_be_an_endpoint(url: object) -> None:
    with pytest.raises(ConfigError, match=r"a message endpoint .* expected a URL such as") as caught:
        check_endpoint(url)

    assert "hidden" not in str(caught.value)
