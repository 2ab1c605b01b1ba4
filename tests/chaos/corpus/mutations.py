"""A seeded mutator of frame sequences in plain Python: what a broken link, an old version or a liar may send."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

M = TypeVar("M")

Frames = list[Any]
"""Frames of one message: bytes, now and then another kind of buffer."""

CLAIMS = [
    marker + length
    for marker in (b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9")
    for length in (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x10\x00\x00\x00", b"\x00\x01\x00\x00")
] + [b"\xdc\xff\xff", b"\xde\xff\xff", b"\xda\xff\xff", b"\xc5\xff\xff", b"\xc7\xff\x01", b"\xcf" + b"\xff" * 8]
"""msgpack's words for arrays, maps, texts, bytes and extensions that are longer than what follows."""

VALUES: list[Any] = [
    None, True, False, 0, 1, 2, -1, 2**31, 2**32, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63),
    0.0, -0.0, 1e308, float("nan"), float("inf"), float("-inf"), "", "x" * 65, "x" * 2001, "\x1b[2J\n", "float32",
    "int64", "object", b"", bytes(15), bytes(16), bytes(33), [], [[]], [1] * 9, [2**53] * 8, [0, 1], [[1, 2], 3], {},
    {"a": 1}, {1: 2}, msgspec.msgpack.Ext(1, b"x"),
]  # fmt: skip
"""What may stand in the place of any field."""

SPECIALS = [struct.pack("<f", each) for each in (float("nan"), float("inf"), float("-inf"), -0.0, 1e-45)]
DEEP = [nest * count for nest in (b"\x91", b"\x81\xa1a", b"\x92\x91") for count in (64, 1000, 20000)]
HUGE = bytes(3 << 20)


class Mutator:
    """Makes sequences from valid messages; the same ones from the same seed.

    Args:
        messages: valid messages as frames.
        seed: of everything it chooses.
    """

    def __init__(self, messages: list[list[bytes]], seed: int) -> None:
        self.dice = random.Random(seed)
        self._messages = messages
        self._fields: dict[bytes, list[Any]] = {each[0]: msgspec.msgpack.decode(each[0]) for each in messages}
        self._names = sorted({fields[0] for fields in self._fields.values()})
        self._pack = msgspec.msgpack.Encoder().encode
        of_header: list[Callable[[bytes], bytes]] = [
            *([self._flip] * 3), self._cut, self._splice, self._claim, self._insert, self._repeat, self._noise,
        ]  # fmt: skip
        self._of_header = of_header
        self._of_fields: list[Callable[[list[Any]], list[Any]]] = [
            *([self._other_value] * 3), self._other_name, self._more_fields, self._fewer_fields, self._nudge,
        ]  # fmt: skip
        self._of_frames: list[Callable[[Frames], Frames]] = [
            self._swap, self._drop, self._extra, self._blob_bytes, self._blob_length, self._blob_kind, self._rare,
        ]  # fmt: skip

    def sequence(self, coming: list[list[bytes]]) -> list[Frames]:
        """Return a mutation of what would come next; now and then it is valid still."""
        chance, pick = self.dice.random, self._below
        sequence: list[Frames] = [list(each) for each in coming[: 1 + pick(3)]]
        if chance() < 0.3:
            self._reorder(sequence)
        for _ in range(1 + (chance() < 0.25)):
            at = pick(len(sequence))
            sequence[at] = self._message(sequence[at])
        return sequence

    def moment(self, phases: list[list[M]]) -> M:
        """Return one of these moments; each phase comes as often as any other."""
        found: M = self._one(self._one(phases))
        return found

    def crowded(self, header: bytes) -> bytes:
        """Return a header with a field that is as long as headers may be."""
        fields = list(self._fields[header])
        many = self._one([1, 2**53, "", "x", b"", bytes(16), bytes(32), [], {}, None, 0.5])
        count = 60000 // len(self._pack(many))
        return self._pack(self._changed(fields, lambda _: [many] * count))

    def _message(self, frames: Frames) -> Frames:
        kind = self.dice.random()
        if kind < 0.2:
            made: Frames = self._one(self._of_frames)(frames)
            return made
        if not frames:
            return frames
        header = bytes(frames[0])
        if kind < 0.55 and (fields := self._fields.get(header)) is not None:
            return [self._pack(self._one(self._of_fields)(list(fields))), *frames[1:]]
        return [self._one(self._of_header)(header), *frames[1:]]

    def _reorder(self, sequence: list[Frames]) -> None:
        what = self._below(5)
        at = self._below(len(sequence))
        if what == 0:
            sequence.insert(at, list(self._one(self._messages)))
        elif what == 1:
            sequence.insert(at, list(sequence[at]))
        elif what == 2:
            sequence[at] = list(self._one(self._messages))
        elif what == 3:
            sequence.reverse()
        elif len(sequence) > 1:
            del sequence[at]

    def _below(self, limit: int) -> int:
        return int(self.dice.random() * limit)

    def _one(self, choices: list[Any]) -> Any:
        return choices[int(self.dice.random() * len(choices))]

    # --- the header as bytes

    def _flip(self, header: bytes) -> bytes:
        spoilt = bytearray(header or b"\x90")
        for _ in range(1 + self._below(3)):
            spoilt[self._below(len(spoilt))] ^= 1 << self._below(8)
        return bytes(spoilt)

    def _cut(self, header: bytes) -> bytes:
        return header[: self._below(len(header) + 1)]

    def _splice(self, header: bytes) -> bytes:
        other = self._one(self._messages)[0]
        return header[: self._below(len(header) + 1)] + bytes(other[self._below(len(other)) :])

    def _claim(self, header: bytes) -> bytes:
        at = self._below(len(header) + 1)
        claim: bytes = self._one(CLAIMS)
        return header[:at] + claim + header[at + self._below(2) :]

    def _insert(self, header: bytes) -> bytes:
        at = self._below(len(header) + 1)
        return header[:at] + self.dice.randbytes(1 + self._below(4)) + header[at + self._below(4) :]

    def _repeat(self, header: bytes) -> bytes:
        at = self._below(len(header) + 1)
        return header + header[at:]

    def _noise(self, header: bytes) -> bytes:
        return self.dice.randbytes(self._below(48))

    # --- the header as fields

    def _other_value(self, fields: list[Any]) -> list[Any]:
        return self._changed(fields, lambda _: self._one(VALUES))

    def _nudge(self, fields: list[Any]) -> list[Any]:
        def nudged(value: Any) -> Any:
            if isinstance(value, bool) or not isinstance(value, int | float):
                return value[:-1] if isinstance(value, str | bytes) else value
            return value + self._one([-1, 1, 2, 1000])

        return self._changed(fields, nudged)

    def _changed(self, fields: list[Any], change: Callable[[Any], Any]) -> list[Any]:
        at = 1 + self._below(len(fields) - 1) if len(fields) > 1 else 0
        value = fields[at]
        if isinstance(value, list) and value and self.dice.random() < 0.8:
            inner = list(value)
            place = self._below(len(inner))
            inner[place] = change(inner[place])
            fields[at] = inner
        else:
            fields[at] = change(value)
        return fields

    def _other_name(self, fields: list[Any]) -> list[Any]:
        fields[0] = self._one(self._names)
        return fields

    def _more_fields(self, fields: list[Any]) -> list[Any]:
        return [*fields, *[self._one(VALUES)] * self._one([1, 2, 20])]

    def _fewer_fields(self, fields: list[Any]) -> list[Any]:
        return fields[: self._below(len(fields))]

    # --- the frames

    def _swap(self, frames: Frames) -> Frames:
        return [*frames[1:], *frames[:1]]

    def _drop(self, frames: Frames) -> Frames:
        return frames[: len(frames) - 1]

    def _extra(self, frames: Frames) -> Frames:
        return [*frames, *[self._one([b"", b"\x00" * 4, bytes(24)])] * self._one([1, 2, 3, 9])]

    def _blob_bytes(self, frames: Frames) -> Frames:
        if len(frames) < 2:
            return [*frames, self.dice.randbytes(24)]
        at = 1 + self._below(len(frames) - 1)
        return [*frames[:at], self._one(SPECIALS) * (len(frames[at]) // 4), *frames[at + 1 :]]

    def _blob_length(self, frames: Frames) -> Frames:
        if len(frames) < 2:
            return [*frames, b"\x00"]
        at = 1 + self._below(len(frames) - 1)
        return [*frames[:at], bytes(self._below(40)), *frames[at + 1 :]]

    def _blob_kind(self, frames: Frames) -> Frames:
        kind = self._one([bytearray, memoryview])
        return [kind(each) for each in frames]

    def _rare(self, frames: Frames) -> Frames:
        """What takes time to make or to read comes seldom."""
        if not frames or self.dice.random() < 0.9:
            return self._swap(frames)
        what = self._below(3)
        if what == 0:
            header = bytes(frames[0])  # a blob stands last, and only in its place may anything stand
            return [header[: self._one([-1, self._below(24)])] + self._one(DEEP), *frames[1:]]
        if what == 1:
            return [frames[0], HUGE]
        return [self._pack([self._one(self._names), *[self._one(VALUES)] * 500, "x" * 60000]), *frames[1:]]
