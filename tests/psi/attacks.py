"""Ways to be dishonest, and what has to be true of a run that refused them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import pytest

import psi
from psi import Initiator, Responder
from psi.curve25519 import points_of
from psi.messages import Side, Writer
from psi.oprf import ECDH, RSA
from tests.psi.helpers import CHUNK_HEAD, SPOTS, TermsOf, blinded, initiator, items_of, responder, run_of

PROTOCOLS = (RSA, ECDH)
TERMS: dict[str, TermsOf] = {
    "rsa": {"protocol": RSA},
    "rsa, initiator": {"protocol": RSA, "reveal": "initiator"},
    "rsa, joint": {"protocol": RSA, "joint": True},
    "ecdh": {"protocol": ECDH},
    "ecdh, initiator": {"protocol": ECDH, "reveal": "initiator"},
    "ecdh, cardinality": {"protocol": ECDH, "reveal": "cardinality"},
    "ecdh, joint": {"protocol": ECDH, "joint": True},
}
"""All terms that two parties can choose."""
AT_ONCE = 64
"""A chunk that holds everything a small run asks, spot checks included."""


def refused(run: Initiator | Responder, message: bytes, error: type[psi.PsiError], text: str) -> None:
    """See that the run refuses the message with this very error, says nothing to it, and is over."""
    said = []
    with pytest.raises(error, match=text) as caught:
        for answer in run.receive(message):
            said.append(answer)
    assert caught.type is error
    assert not said
    over(run)


def over(run: Initiator | Responder) -> None:
    """See that a run has failed: it takes nothing, gives nothing, and its secrets are dropped."""
    assert not run.finished
    with pytest.raises(psi.UsedTwice, match="failed earlier"):
        run.receive(b"anything")
    with pytest.raises(psi.NotYet, match="this run failed"):
        _ = run.intersection
    with pytest.raises(psi.NotYet, match="this run failed"):
        _ = run.cardinality
    if isinstance(run, Initiator):
        assert not run.matched
        for use in (run.reveal, run.resume):
            with pytest.raises(psi.UsedTwice, match="failed earlier"):
                use()
        with pytest.raises(psi.NotYet):
            _ = run.shares
        assert run._asker is None and run._questions is None and run._shares is None and not run._items
    else:
        assert not run.busy
        with pytest.raises(psi.UsedTwice, match="failed earlier"):
            run.advance()
        with pytest.raises(psi.UsedTwice, match="started before"):
            run.start()
        assert run._answers is None and run._own is None and run._shuffled is None
        assert run._given_key is None and not run._revealed
    assert run._workers._own is None


def good(protocol: str, count: int, first: int = 0) -> list[int | bytes]:
    """Some elements that a responder takes."""
    if protocol == RSA:
        return list(range(5 + first, 5 + first + count))
    return list(_points(points_of([str(each) for each in range(first, first + count)], bytes(32), b"tests")))


def ask(protocol: str, run: bytes, items: Sequence[int | bytes], *, position: int = 0, ids: int | None = None) -> bytes:
    """A chunk of elements that declares as many as belong to `ids` ids (default: one for each element)."""
    return blinded(run, items, position=position, total=(len(items) if ids is None else ids) + SPOTS[protocol])


def with_items(message: bytes, width: int, change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """The message with other items; what it says of their number stays."""
    return message[:CHUNK_HEAD] + b"".join(change(items_of(message, width)))


def swapped(first: int, second: int) -> Callable[[list[bytes]], list[bytes]]:
    """Exchanges two items."""

    def change(items: list[bytes]) -> list[bytes]:
        items[first], items[second] = items[second], items[first]
        return items

    return change


def declared(message: bytes, *, position: int | None = None, total: int | None = None) -> bytes:
    """The same items with other words about them."""
    start, end = CHUNK_HEAD - 16, CHUNK_HEAD - 8
    first = message[start:end] if position is None else position.to_bytes(8, "big")
    second = message[end:CHUNK_HEAD] if total is None else total.to_bytes(8, "big")
    return message[:start] + first + second + message[CHUNK_HEAD:]


def flipped(message: bytes, position: int, bits: int = 1) -> bytes:
    """The message with one byte changed."""
    changed = bytearray(message)
    changed[position] ^= bits
    return bytes(changed)


def writer_of(message: bytes, side: Side, attempt: int = 0) -> Writer:
    """Writes as that side in the run of this message."""
    return Writer(side, run_of(message), attempt)


def both(ids: Sequence[str], peer_ids: Sequence[str], **terms: object) -> tuple[Initiator, Responder]:
    """Both runs of one set of terms, not started; a joint one has no other responder, so its own shares cancel."""
    chosen = {**terms, "joint": ()} if terms.get("joint") else terms
    return initiator(ids, **terms), responder(peer_ids, **chosen)  # type: ignore[arg-type]  # the keys are TermsOf's


def end(left: Initiator) -> list[bytes]:
    """What the initiator of a matched run says last."""
    if left.terms.joint:
        psi.join([left])
    return list(left.reveal())


def play(left: Initiator, right: Responder, tamper: Callable[[int, bytes], Sequence[bytes]]) -> psi.PsiError | None:
    """Carry a whole run over a link that may change it.

    Args:
        left, right: fresh runs.
        tamper: given the number of a message in the run and the message, says what arrives in its place.

    Returns:
        The error of the party that refused, if one did; the run stops there, as parties do.
    """
    number = 0
    waiting: deque[tuple[Initiator | Responder, bytes]] = deque()

    def send(to: Initiator | Responder, message: bytes) -> None:
        nonlocal number
        waiting.extend((to, each) for each in tamper(number, message))
        number += 1

    for message in right.start():
        send(left, message)
    try:
        while True:
            while waiting:
                to, message = waiting.popleft()
                for answer in to.receive(message):
                    send(right if to is left else left, answer)
            if not left.matched or left._phase.name != "MATCHED":
                return None
            for message in end(left):
                send(right, message)
    except psi.PsiError as error:
        return error


def _points(data: bytes) -> list[bytes]:
    return [data[start : start + 32] for start in range(0, len(data), 32)]
