"""How a tensor looks on the wire: as it is, as bytes with a scale for each row, or the largest numbers of each row.

A form holds everything that its sizes follow from, and whoever makes one, from a peer's bytes too, has that checked:
then nothing that is made of it later takes much more memory than came. What the numbers are is checked where they are
looked into (`heterofed/frames/precision.py`). A row is everything under one first index; its width is the product of
the other dimensions.
"""

from __future__ import annotations

from collections.abc import Collection
from math import prod
from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]
Number: TypeAlias = Annotated[int, Meta(ge=1, le=2**53)]


class Blob:
    """Bytes that travel as a frame of their own, without a copy."""

    __slots__ = ("data",)

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self.data = data

    @property
    def nbytes(self) -> int:
        """Length in bytes."""
        return self.data.nbytes if isinstance(self.data, memoryview) else len(self.data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blob) and bytes(self.data) == bytes(other.data)

    def __hash__(self) -> int:
        return hash(bytes(self.data))

    def __repr__(self) -> str:
        return f"Blob({self.nbytes} bytes)"


DTYPE_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
"""The dtypes that may cross the cut, and the size of one element in bytes."""

MAX_DIMENSIONS = 8
"""More dimensions than any embedding has; a bound on what a header can make us compute."""

SCALE_BYTES = 2
"""Size of a bfloat16 in bytes."""

MOST_LEFT_OUT = 1000
"""At least one number in so many crosses: a bound on how much larger a tensor is than its `TopTensor`."""

Shape: TypeAlias = Annotated[tuple[Number, ...], Meta(min_length=2, max_length=MAX_DIMENSIONS)]


class RawTensor(Struct, frozen=True, tag="raw", array_like=True, forbid_unknown_fields=True):
    """A tensor as dtype, shape and little-endian row-major bytes; checked whenever one is made."""

    dtype: str
    shape: Shape
    data: Blob

    def __post_init__(self) -> None:
        size = DTYPE_BYTES.get(self.dtype) or _size_of(self.dtype, DTYPE_BYTES)
        if prod(self.shape) * size != self.data.nbytes:
            raise ValueError(f"shape {self.shape} of {self.dtype} does not fit {self.data.nbytes} bytes")


class Int8Tensor(Struct, frozen=True, tag="int8", array_like=True, forbid_unknown_fields=True):
    """A tensor as one signed byte for each number and one scale for each row; checked whenever one is made."""

    shape: Shape
    data: Blob
    """Row-major, -127 to 127 each; times the scale of its row it is the number."""
    scales: Blob
    """bfloat16, little-endian, one for each row."""

    def __post_init__(self) -> None:
        if prod(self.shape) != self.data.nbytes:
            raise ValueError(f"shape {self.shape} of int8 does not fit {self.data.nbytes} bytes")
        if SCALE_BYTES * self.shape[0] != self.scales.nbytes:
            raise ValueError(f"scales of {self.shape[0]} rows do not fit {self.scales.nbytes} bytes")


class TopTensor(Struct, frozen=True, tag="top", array_like=True, forbid_unknown_fields=True):
    """The largest numbers of each row and where they stand in it; the others are 0. Checked whenever one is made."""

    dtype: str
    """Of the numbers."""
    shape: Shape
    """Of the whole tensor."""
    count: Number
    """How many numbers of each row there are."""
    indices: Blob
    """(rows, count), rising in each row, little-endian; `index_bytes` for each."""
    numbers: Blob
    """(rows, count), in the order of the indices, little-endian."""

    def __post_init__(self) -> None:
        size = _size_of(self.dtype, TOP_DTYPES)
        if not self.count <= self.width <= MOST_LEFT_OUT * self.count:
            raise ValueError(f"{self.count} numbers of rows of {self.width}")
        many = self.shape[0] * self.count
        if many * index_bytes(self.width) != self.indices.nbytes:
            raise ValueError(f"{many} indices do not fit {self.indices.nbytes} bytes")
        if many * size != self.numbers.nbytes:
            raise ValueError(f"{many} numbers of {self.dtype} do not fit {self.numbers.nbytes} bytes")

    @property
    def width(self) -> int:
        """How many numbers a row of the whole tensor has."""
        return prod(self.shape[1:])


TOP_DTYPES = ("float16", "bfloat16", "float32")
"""The dtypes of what a `TopTensor` holds."""

WireTensor: TypeAlias = RawTensor | Int8Tensor | TopTensor


def nbytes_of(wire: WireTensor) -> int:
    """Return how many bytes of a tensor cross, without its header."""
    if isinstance(wire, RawTensor):
        return wire.data.nbytes
    if isinstance(wire, Int8Tensor):
        return wire.data.nbytes + wire.scales.nbytes
    return wire.indices.nbytes + wire.numbers.nbytes


def index_bytes(width: int) -> int:
    """Return the size of the smallest unsigned integer that counts a row's numbers from 0, in bytes: 1, 2 or 4.

    Raises:
        ValueError: none of these does.
    """
    for size in (1, 2, 4):
        if width <= 1 << 8 * size:
            return size
    raise ValueError(f"rows of {width} numbers")


def _size_of(dtype: str, allowed: Collection[str]) -> int:
    if dtype not in allowed:
        raise ValueError(f"dtype {dtype[:32]!r} may not cross; one of {', '.join(allowed)} may")
    return DTYPE_BYTES[dtype]
