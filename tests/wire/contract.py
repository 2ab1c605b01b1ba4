"""The contract of `heterofed.wire.transport` as tests; each transport's test file subclasses `Contract`."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

import pytest

from heterofed.errors import ConfigError, PeerGone, PeerTimeout, WireError
from heterofed.wire.transport import Buffer, Delivery, Transport

HOST = "hospital"
PATIENCE_S = 10.0


class Star(Protocol):
    """A host and whoever joins it."""

    @property
    def host(self) -> Transport:
        """The end in the middle."""

    def join(self, party: str) -> Transport:
        """Open a collaborator's end."""

    def close(self) -> None:
        """Close every end."""


def arrival(end: Transport) -> Delivery:
    """The next delivery; it must come soon."""
    delivery = end.receive(PATIENCE_S)
    assert delivery is not None, f"nothing came to {end.party}"
    return delivery


def content(delivery: Delivery) -> list[bytes]:
    return [bytes(frame) for frame in delivery.frames]


def meet(star: Star, party: str) -> Transport:
    """Join, and let the host hear it."""
    end = star.join(party)
    end.send(HOST, [b"here I am"], timeout_s=PATIENCE_S)
    delivery = arrival(star.host)
    assert (delivery.sender, content(delivery)) == (party, [b"here I am"])
    return end


def wait_until_down(end: Transport, party: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while end.down_for(party) == 0.0:
        assert time.monotonic() < deadline, f"{end.party} never noticed that {party} is down"
        assert end.receive(0.02) is None


def wait_until_up(end: Transport, party: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while end.down_for(party) > 0.0:
        assert time.monotonic() < deadline, f"{end.party} never noticed that {party} is back"
        end.receive(0.02)


class Contract:
    """Subclass it as `Test...` and say how to open a star."""

    def open_star(self, queue_messages: int = 64, max_message_bytes: int = 1 << 30) -> Star:
        raise NotImplementedError

    @pytest.fixture
    def star(self) -> Iterator[Star]:
        star = self.open_star()
        yield star
        star.close()

    def test_frame_sequences_arrive_whole_and_in_order_in_both_directions(self, star: Star) -> None:
        end = meet(star, "bank")
        sent = [[b"head %d" % n, b"tensor" * n, b"more"] for n in range(50)]
        for frames in sent:
            end.send(HOST, frames)
            star.host.send("bank", frames)
        assert [content(arrival(star.host)) for _ in sent] == sent
        assert [content(arrival(end)) for _ in sent] == sent

    def test_a_delivery_names_its_sender(self, star: Star) -> None:
        end = meet(star, "bank")
        end.send(HOST, [b"x"])
        star.host.send("bank", [b"y"])
        assert arrival(star.host).sender == "bank"
        assert arrival(end).sender == HOST

    def test_each_end_says_whose_it_is(self, star: Star) -> None:
        assert (star.host.party, star.join("bank").party) == (HOST, "bank")

    @pytest.mark.parametrize("size", [0, 1, 255, 256, 65_536, 262_143, 262_144, 262_145, 524_288, 5 << 20])
    def test_a_frame_of_any_size_arrives_as_it_was(self, star: Star, size: int) -> None:
        end = meet(star, "bank")
        frames = [b"head", secrets.token_bytes(size), b"tail"]
        end.send(HOST, frames)
        assert content(arrival(star.host)) == frames
        star.host.send("bank", frames)
        assert content(arrival(end)) == frames

    def test_empty_frames_after_the_first_arrive(self, star: Star) -> None:
        end = meet(star, "bank")
        for frames in (
            [b"head", b""],
            [b"head", b"", b"", b"x", b""],
            [b"head", b"", secrets.token_bytes(600_000), b""],
        ):
            end.send(HOST, frames)
            assert content(arrival(star.host)) == frames

    def test_bytes_bytearrays_and_memoryviews_of_any_item_size_can_be_sent(self, star: Star) -> None:
        end = meet(star, "bank")
        numbers = memoryview(bytearray(range(16))).cast("I")
        end.send(HOST, [b"a", bytearray(b"b"), memoryview(b"c"), numbers])
        assert content(arrival(star.host)) == [b"a", b"b", b"c", bytes(range(16))]
        large = memoryview(bytearray(secrets.token_bytes(400_000))).cast("I")
        end.send(HOST, [b"a", large])
        assert content(arrival(star.host)) == [b"a", bytes(large)]

    @pytest.mark.parametrize("size", [16, 1_000_000])
    def test_the_sender_may_reuse_its_memory_at_once(self, star: Star, size: int) -> None:
        end = meet(star, "bank")
        memory = bytearray(b"a" * size)
        end.send(HOST, [memory])
        memory[:] = b"z" * size
        assert content(arrival(star.host)) == [b"a" * size]

    @pytest.mark.parametrize("size", [16, 100_000, 1_200_000])
    def test_what_is_kept_is_sent_as_it_was_and_as_often_as_it_takes(self, star: Star, size: int) -> None:
        end = meet(star, "bank")
        memory = bytearray(b"a" * size)
        for sender, to, receiver in ((end, HOST, star.host), (star.host, "bank", end)):
            memory[:] = b"a" * size
            kept = sender.keep([b"head", memory])
            assert list(map(len, kept)) == [4, size]
            memory[:] = b"z" * size
            for _ in range(3):
                sender.send(to, kept)
                assert content(arrival(receiver)) == [b"head", b"a" * size]

    @pytest.mark.parametrize("size", [16, 1_000_000])
    def test_what_arrived_is_writable_and_stays_when_more_arrives(self, star: Star, size: int) -> None:
        end = meet(star, "bank")
        end.send(HOST, [b"a" * size])
        first = arrival(star.host)
        end.send(HOST, [b"b" * size])
        second = arrival(star.host)
        view = memoryview(first.frames[0])
        assert not view.readonly
        view[:1] = b"!"
        assert content(first) == [b"!" + b"a" * (size - 1)]
        assert content(second) == [b"b" * size]

    def test_many_parties_talk_at_once_and_are_told_apart(self, star: Star) -> None:
        parties = [f"party{n}" for n in range(6)]
        ends = {party: meet(star, party) for party in parties}

        def talk(end: Transport) -> None:
            for n in range(20):
                end.send(HOST, [b"%s %d" % (end.party.encode(), n)])

        threads = [threading.Thread(target=talk, args=(end,)) for end in ends.values()]
        for thread in threads:
            thread.start()
        heard: dict[str, list[bytes]] = {party: [] for party in parties}
        for _ in range(20 * len(parties)):
            delivery = arrival(star.host)
            heard[delivery.sender] += content(delivery)
        for thread in threads:
            thread.join()
        assert heard == {party: [b"%s %d" % (party.encode(), n) for n in range(20)] for party in parties}
        for party in parties:
            star.host.send(party, [party.encode()])
        assert [content(arrival(ends[party])) for party in parties] == [[party.encode()] for party in parties]

    @pytest.mark.parametrize("timeout_s", [0.0, 0.01, 0.15])
    def test_receive_returns_none_after_its_timeout(self, star: Star, timeout_s: float) -> None:
        end = meet(star, "bank")
        for each in (star.host, end):
            began = time.monotonic()
            assert each.receive(timeout_s) is None
            assert timeout_s <= time.monotonic() - began < timeout_s + 3.0

    def test_receive_wakes_up_as_soon_as_something_comes(self, star: Star) -> None:
        end = meet(star, "bank")
        timer = threading.Timer(0.1, lambda: end.send(HOST, [b"late"]))
        timer.start()
        began = time.monotonic()
        assert content(arrival(star.host)) == [b"late"]
        assert time.monotonic() - began < 3.0
        timer.join()

    def test_what_is_sent_before_the_first_connection_arrives(self, star: Star) -> None:
        end = star.join("bank")
        for n in range(10):
            end.send(HOST, [b"%d" % n])
        assert end.receive(0.1) is None
        assert [content(arrival(star.host)) for _ in range(10)] == [[b"%d" % n] for n in range(10)]

    def test_a_party_that_never_came_is_gone_and_not_down(self, star: Star) -> None:
        end = meet(star, "bank")
        with pytest.raises(PeerGone, match="nobody"):
            star.host.send("nobody", [b"x"])
        with pytest.raises(PeerGone, match="nobody"):
            end.send("nobody", [b"x"])
        assert star.host.down_for("nobody") == end.down_for("nobody") == 0.0

    def test_collaborators_reach_the_host_only(self, star: Star) -> None:
        bank, shop = meet(star, "bank"), meet(star, "shop")
        with pytest.raises(PeerGone, match="shop"):
            bank.send("shop", [b"x"])
        bank.close()
        assert shop.down_for("bank") == 0.0

    def test_a_link_is_down_for_longer_and_longer_after_the_other_end_closed(self, star: Star) -> None:
        end = meet(star, "bank")
        assert star.host.down_for("bank") == 0.0
        end.close()
        wait_until_down(star.host, "bank")
        first = star.host.down_for("bank")
        time.sleep(0.05)
        assert star.host.down_for("bank") >= first + 0.04
        with pytest.raises(PeerGone, match="bank"):
            star.host.send("bank", [b"x"], timeout_s=1.0)

    def test_a_collaborator_notices_that_the_host_closed(self, star: Star) -> None:
        end = meet(star, "bank")
        assert end.down_for(HOST) == 0.0
        star.host.close()
        wait_until_down(end, HOST)
        first = end.down_for(HOST)
        time.sleep(0.05)
        assert end.down_for(HOST) >= first + 0.04
        with pytest.raises(PeerGone, match=HOST):
            end.send(HOST, [b"x"], timeout_s=1.0)

    def test_a_party_that_comes_back_is_up_again(self, star: Star) -> None:
        meet(star, "bank").close()
        wait_until_down(star.host, "bank")
        end = meet(star, "bank")
        assert star.host.down_for("bank") == 0.0
        star.host.send("bank", [b"welcome back"])
        assert content(arrival(end)) == [b"welcome back"]

    def test_the_other_links_stay_up_when_one_breaks(self, star: Star) -> None:
        bank, shop = meet(star, "bank"), meet(star, "shop")
        bank.close()
        wait_until_down(star.host, "bank")
        assert star.host.down_for("shop") == shop.down_for(HOST) == 0.0
        star.host.send("shop", [b"x"])
        assert content(arrival(shop)) == [b"x"]

    def test_what_was_sent_before_closing_arrives(self, star: Star) -> None:
        end = meet(star, "bank")
        for n in range(5):
            end.send(HOST, [b"%d" % n, b"x" * 300_000])
        end.close()
        assert [content(arrival(star.host))[0] for _ in range(5)] == [b"%d" % n for n in range(5)]

    def test_a_closed_end_says_so_and_may_be_closed_again(self, star: Star) -> None:
        end = meet(star, "bank")
        for each, other in ((end, HOST), (star.host, "bank")):
            each.close()
            each.close()
            with pytest.raises(WireError, match="closed"):
                each.send(other, [b"x"])
            with pytest.raises(WireError, match="closed"):
                each.receive(0.0)
            with pytest.raises(WireError, match="closed"):
                each.down_for(other)

    def test_an_end_is_a_context_manager(self, star: Star) -> None:
        with meet(star, "bank") as end:
            end.send(HOST, [b"x"])
        with pytest.raises(WireError, match="closed"):
            end.receive(0.0)

    def test_a_full_queue_makes_the_sender_wait_and_then_time_out(self) -> None:
        star = self.open_star(queue_messages=2)
        try:
            end = meet(star, "bank")
            for sender, to, receiver in ((end, HOST, star.host), (star.host, "bank", end)):
                sent, waited_s, text = self._fill(sender, to)
                assert 0.2 <= waited_s < 5.0
                assert "full for 0.2 s" in text
                assert to in text
                assert [content(arrival(receiver))[0] for _ in range(sent)] == [b"%d" % n for n in range(sent)]
        finally:
            star.close()

    def test_a_sender_that_waits_for_room_goes_on_when_there_is_some(self) -> None:
        star = self.open_star(queue_messages=2)
        try:
            end = meet(star, "bank")
            sent, _, _ = self._fill(end, HOST)
            seen: list[bytes] = []

            def drain() -> None:
                while len(seen) <= sent:
                    seen.append(content(arrival(star.host))[0])

            thread = threading.Thread(target=drain)
            thread.start()
            end.send(HOST, [b"patient"], timeout_s=PATIENCE_S)
            assert end.receive(0.0) is None
            thread.join(PATIENCE_S)
            assert seen[-1] == b"patient"
        finally:
            star.close()

    @pytest.mark.parametrize(
        ("frames", "complaint"),
        [([], "0 frames"), ([b"", b"x"], "empty first frame"), ([b"x", memoryview(b"abcd")[::2]], "gaps")],
    )
    def test_a_message_that_cannot_travel_is_refused_at_once(
        self, star: Star, frames: Sequence[Buffer], complaint: str
    ) -> None:
        end = meet(star, "bank")
        for sender, to in ((end, HOST), (star.host, "bank")):
            with pytest.raises(ConfigError, match=complaint):
                sender.send(to, frames)
        end.send(HOST, [b"still works"])
        assert content(arrival(star.host)) == [b"still works"]

    def test_a_message_over_the_limit_is_refused_with_the_setting_to_change(self) -> None:
        star = self.open_star(max_message_bytes=1000)
        try:
            end = meet(star, "bank")
            with pytest.raises(WireError, match=r"1001 bytes.*at most 1000.*HETEROFED_MAX_MESSAGE_BYTES"):
                end.send(HOST, [b"x", b"y" * 1000])
            end.send(HOST, [b"x", b"y" * 999])
            assert content(arrival(star.host)) == [b"x", b"y" * 999]
        finally:
            star.close()

    @staticmethod
    def _fill(sender: Transport, to: str) -> tuple[int, float, str]:
        """Send until the queue is full, also where the operating system has buffers.

        Returns how many went in, how long the one after them waited, and what it raised.
        """
        for n in range(10_000):
            began = time.monotonic()
            try:
                sender.send(to, [b"%d" % n, bytes(200_000)], timeout_s=0.2)
            except PeerTimeout as error:
                return n, time.monotonic() - began, str(error)
        raise AssertionError("the queue has no end")
