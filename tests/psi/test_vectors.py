"""Known answers: a fixed key and seeded randomness give exactly these bytes, so an incompatible change is noticed.

Two releases must find each other's ids. If one of these changes on purpose, raise the version in the key offer and in
the hashes' protocol name, and say so in the changelog.
"""

from __future__ import annotations

import hashlib

from psi.hashing import RunHash
from tests.psi.helpers import SESSION, TASK, Seeded, answers, initiator, key, responder, tag_of


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_the_seeded_randomness_and_the_test_key_are_what_they_were() -> None:
    assert Seeded(b"seed")(16).hex() == "0e960575c4dedef2f704e6320451629e"
    modulus = int(key().public.n).to_bytes(256, "big")
    assert _sha256(modulus) == "3a3e0c63efe00f2e0522f9f24c2771d5e64a3b0cbd45bf1146692d29668a3838"


def test_an_id_has_this_element_and_this_tag() -> None:
    element = RunHash(TASK, SESSION, key().public.n).element("alice")
    spelled = int(element).to_bytes(256, "big")
    assert _sha256(spelled) == "0aa56f67b7d469ec9bc0a21d8b317efb44d4013e26869fe3416207544e1e7c28"
    assert tag_of("alice").hex() == "99c1bf3aa58a10d88c85d313520a2fbc"


def test_a_whole_run_says_exactly_these_bytes() -> None:
    left, right = initiator(["alice", "bob", "chloé"], chunk=2), responder(["bob", "chloé", "dan"], chunk=2)
    offer = list(right.start())
    chunks = answers(left, offer)
    replies = answers(right, chunks)
    answers(left, replies)
    reveal = list(left.reveal(left.intersection))
    said = [(message[:2], len(message), _sha256(message)) for message in (*offer, *chunks, *replies, *reveal)]
    assert said == [
        (b"R\x01", 2353, "4e3f459c08cdad8c5a71e942a4fa6c145825ac266d9052a95e803de4ba89b3b3"),
        (b"I\x02", 546, "e50a7b2318efd44a215d6809f2d65dbc404fa92a346d04976ccfb823009cb822"),
        (b"I\x02", 290, "616d23a1ce5c876fd0958d26dacbfcee75c1010055bfe33caabee208ae0330ea"),
        (b"R\x03", 546, "391728d0f121687321162a5a8dffea82681bdf7de600934199d2e940ec794cbe"),
        (b"R\x03", 290, "4a97dcdc0b0ec8d964fadfd3de458e0fe23445ec7e347ba90d3b26d85b171a1d"),
        (b"R\x04", 66, "fa4a00a3b42af8573a2f1dbbfd3b05dd8db0d585286792476df903a7ea7b725d"),
        (b"R\x04", 50, "4bb6fac4275f0c43e860742a5a977b716f7675dd79115925668e72ec338d0882"),
        (b"I\x05", 66, "f27433a34f20ddfdeb7b25a5809b9821a92c1b674a40c862e36d44230dcb3216"),
    ]
    assert reveal[0].hex() == (
        "4905" + "0607ab58424439feb81e9eeb310d713d" + "0000000000000000" + "0000000000000002"
        + "c0a888d91de81d6f5df0ad3cc772e47f" + "d015953ab989ae0aad754677a8eaf20e"
    )  # fmt: skip
