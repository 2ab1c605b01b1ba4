"""Known answers: a fixed key and seeded randomness give exactly these bytes, so an incompatible change is noticed.

Two releases must find each other's ids. If one of these changes on purpose, raise the version in the offer and in the
hashes' label, and say so in the changelog.
"""

from __future__ import annotations

import hashlib

import pytest

import psi
from psi.pairing import shares
from tests.psi.helpers import (
    PAIR_KEYS,
    TASK,
    Seeded,
    carry,
    finish,
    holder,
    initiator,
    key,
    output_of,
    responder,
)

OWN, OTHERS = ["alice", "bob", "chloé"], ["bob", "chloé", "dan"]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_the_seeded_randomness_and_the_test_key_are_what_they_were() -> None:
    assert Seeded(b"seed")(16).hex() == "0e960575c4dedef2f704e6320451629e"
    modulus = key().n.to_bytes(256, "big")
    assert sha256(modulus) == "3a3e0c63efe00f2e0522f9f24c2771d5e64a3b0cbd45bf1146692d29668a3838"


@pytest.mark.parametrize(("protocol", "public", "power", "output"), [
    (
        "rsa",
        "36d2c99b7809258361a7fff8aebab6dbef1013f6e598e244afe68e398d6134f3",
        "4c3a7a552148202981c38ceeea3b7933438d8f65a566c5b369e4a42dbe5c4930",
        "3c386345e237fc09fdaf9be6702f8c0580dd0b32cb9b83cb26f3805c22a40897",
    ),
    (
        "ecdh",
        "ada38f58c992c89ce2e0c684d1d40afc5c27e1310a3260e5587cb855b1fd7faa",
        "806e53183dd7fa998595d2b8a775721cd056eadb3a1dcb1b8874b69f49525dbe",
        "cdd581f3865797e919d2e8da805fb7a57c37a7241496e81aa0a191cf65be55fb",
    ),
])  # fmt: skip
def test_an_id_has_this_power_and_this_output(protocol: str, public: str, power: str, output: str) -> None:
    assert sha256(holder(protocol).context.public) == public
    assert sha256(holder(protocol).powers(["alice"])) == power
    assert output_of("alice", protocol).hex() == output


def test_a_pair_of_responders_has_these_shares() -> None:
    found = shares(OWN, PAIR_KEYS).tobytes().hex()
    assert found == "1083a8744ebcc016e56ecc895271bd79a23bddbb59b36d55416ee27f5f87ea7436faca345f35005829f317596bd62470"


RUNS = {
    ("rsa", "both", False): [
        (b"R\x01", 2357, "66fc04b27445bd723ccd32828d0ea45e"),
        (b"I\x02", 803, "290dc6e46b1ed93c82b6bbf7539ac454"),
        (b"R\x03", 803, "f9ec6252279d50f8b3d17684317f54d3"),
        (b"R\x04", 67, "dc2ecf1e4d292d71f3ddf24d32e62396"),
        (b"R\x04", 51, "cde4e557dc59b25de8dc1eb65ef6f818"),
        (b"I\x05", 59, "ec6db747e73f78aa90baaba941a505b4"),
        (b"I\x06", 59, "a589a3dbb18c848899a36efefd410ff6"),
        (b"R\x06", 59, "7e2133d00b429c8cb44706a540287f40"),
    ],
    ("ecdh", "both", False): [
        (b"R\x01", 79, "80735bdc6a73abe311b9bfe4d8f44aa4"),
        (b"I\x02", 675, "626968ea9851276217fbcfe08e346d33"),
        (b"I\x02", 515, "184348ba8faa9396f46b642ca9e751c8"),
        (b"R\x03", 675, "37431ddb2675c621370b801eb1b5808a"),
        (b"R\x03", 515, "5636fae3a950d02b2a45cd385efa8c1b"),
        (b"R\x04", 67, "3dc1108e66b8e272c5707007dd931bab"),
        (b"R\x04", 51, "4b7ead9e91a778ab162bb85561d63c6e"),
        (b"I\x05", 59, "c9ba1803eecc51ff6dd49e60652cfccc"),
        (b"I\x06", 59, "7f9c1ff7a897e248fc6106af4ceae8ce"),
        (b"R\x06", 59, "8b154d2a2880348e291967db6972dd40"),
    ],
    ("ecdh", "initiator", False): [
        (b"R\x01", 79, "56332eb9620837d4c2658df5e9305284"),
        (b"I\x02", 675, "626968ea9851276217fbcfe08e346d33"),
        (b"I\x02", 515, "184348ba8faa9396f46b642ca9e751c8"),
        (b"R\x03", 675, "37431ddb2675c621370b801eb1b5808a"),
        (b"R\x03", 515, "5636fae3a950d02b2a45cd385efa8c1b"),
        (b"R\x04", 67, "3dc1108e66b8e272c5707007dd931bab"),
        (b"R\x04", 51, "4b7ead9e91a778ab162bb85561d63c6e"),
        (b"I\x06", 59, "9b199e027dfcff03056748bc0f00ffeb"),
        (b"R\x06", 59, "83f82cefabbec311eb35bde553815d5b"),
    ],
    ("ecdh", "cardinality", False): [
        (b"R\x01", 79, "f0bc698811a180363f7bc22a5435b994"),
        (b"I\x02", 675, "626968ea9851276217fbcfe08e346d33"),
        (b"I\x02", 515, "184348ba8faa9396f46b642ca9e751c8"),
        (b"R\x07", 27, "7b5be8df666ba92eb483629fee9cdcf1"),
        (b"R\x07", 27, "e28d753fbae81682020f2958b1ac2e7a"),
        (b"R\x03", 675, "83e8c7aa93f99628e059cb442647629b"),
        (b"R\x03", 515, "ccceb505240d7b669ab1625b28941b68"),
        (b"R\x04", 83, "f86c17d400a03cb6f1e6718fda674a0f"),
        (b"I\x06", 59, "c83789e551c32f02f55478ce1c76bf7a"),
        (b"R\x06", 59, "c6e9a6ebddd47f1f4ae6966389e1a331"),
    ],
    ("rsa", "both", True): [
        (b"R\x01", 2357, "0d4f227e6b12ff24c475f5860d78bbc3"),
        (b"I\x02", 803, "290dc6e46b1ed93c82b6bbf7539ac454"),
        (b"R\x03", 803, "f9ec6252279d50f8b3d17684317f54d3"),
        (b"R\x08", 1635, "895ee951c8db7e1ba1808019d230169c"),
        (b"R\x08", 339, "dac687d94ba71d8ee31af79a24c45f3c"),
        (b"I\x05", 35, "f971121d0b80becc9a819097188b051c"),
        (b"I\x06", 59, "573b4ee5b118385325929a41e0796a58"),
        (b"R\x06", 59, "e7019921d7b8ca01e6c54aa0c9c40135"),
    ],
    ("ecdh", "both", True): [
        (b"R\x01", 79, "f4359c45e7d600d0fd73a25dbb9d5f01"),
        (b"I\x02", 675, "626968ea9851276217fbcfe08e346d33"),
        (b"I\x02", 515, "184348ba8faa9396f46b642ca9e751c8"),
        (b"R\x03", 675, "37431ddb2675c621370b801eb1b5808a"),
        (b"R\x03", 515, "5636fae3a950d02b2a45cd385efa8c1b"),
        (b"R\x08", 1635, "5cfa9e380bc1b3e466682576c682dc4f"),
        (b"R\x08", 339, "6b41bfe11f9934be97bf043fea7a3da8"),
        (b"I\x05", 35, "3afb5fe6088fcbdb9dc4d57a6108efc3"),
        (b"I\x06", 59, "27f6103a1ab3de662e8a33aed7dae64c"),
        (b"R\x06", 59, "146db007391d4167059499e67fbbf9cb"),
    ],
}


@pytest.mark.parametrize(("protocol", "reveal", "joint"), list(RUNS))
def test_a_whole_run_says_exactly_these_bytes(protocol: str, reveal: str, joint: bool) -> None:
    chunk = 100 if joint else 2 if reveal != "cardinality" else 20
    left = initiator(OWN, protocol=protocol, reveal=reveal, joint=joint, chunk=20)
    right = responder(OTHERS, protocol=protocol, reveal=reveal, joint=[bytes(32)] if joint else False, chunk=chunk)
    said = carry(left, right, right.start())
    if joint:
        psi.join([left])
    said += finish(left, right)
    assert [(message[:2], len(message), sha256(message)[:32]) for message in said] == RUNS[protocol, reveal, joint]


def test_the_messages_begin_with_side_kind_attempt_and_run() -> None:
    left, right = initiator(["bob"], protocol="ecdh"), responder(["bob"], protocol="ecdh")
    said = carry(left, right, right.start())
    said += finish(left, right)
    run = "ed006036317e54ff8f6676770a30875d"
    offer, reveal = said[0].hex(), said[-3].hex()
    assert offer == (
        "520100ed006036317e54ff8f6676770a30875d"
        "02020100971300b76e9b79c8d51bf972ee6c9ebe00000000000000015fbbd656"
        "a38a883af6f212fc17999aa0a013742e28d568e607922e4db753c504"
    )
    assert reveal == ("490500ed006036317e54ff8f6676770a30875d00000000000000000000000000000001153057b89c1cb0c1b08e3837")
    assert all(message[3:19].hex() == run and message[2] == 0 for message in said)
    assert TASK.encode() not in b"".join(said)
