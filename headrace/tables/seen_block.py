"""Accepted readings in a form that is small, and quick to search: what the identity table is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.schemas.readings import Floats, Ints

Bools = NDArray[np.bool_]
Extras = list[bytes | None]

#: Device number and event time make one sortable integer; 42 bits of ms reach to May 2109.
TIME_BITS = 42
TIME_MASK = (1 << TIME_BITS) - 1
#: Devices that fit beside the time in a signed 64-bit integer.
MAX_DEVICES = 1 << (63 - TIME_BITS)


class Entry(NamedTuple):
    """What is known of one device at one time: measures by name, and extras as JSON."""

    measures: dict[str, float]
    extra: bytes | None


def codes_of(devices: Ints, times: Ints) -> Ints:
    """Device number and event time as one integer each, (n,); sorts by device, then time."""
    return (devices << TIME_BITS) | times


@dataclass(slots=True, frozen=True)
class Block:
    """Accepted readings, sorted by code; unchangeable.

    Args:
        epoch: day in which they were accepted (see `Seen`).
        codes: (n,) int64, ascending, each once; see `codes_of`.
        measures: by name, (n,) float64; NaN where a reading has none.
        extras: per reading; None for "nothing, in all of them".
        earliest, latest: least and greatest event time, ms.
    """

    epoch: int
    codes: Ints
    measures: dict[str, Floats]
    extras: Extras | None
    earliest: int
    latest: int

    @classmethod
    def build(cls, epoch: int, codes: Ints, measures: Mapping[str, Floats], extras: Extras | None) -> "Block":
        """A block of these readings, in any order; of those with equal codes the last counts."""
        order = np.argsort(codes, kind="stable")
        codes = codes[order]
        last = np.append(codes[1:] != codes[:-1], True)
        if not last.all():
            codes, order = codes[last], order[last]
        times = codes & TIME_MASK
        return cls(
            epoch,
            codes,
            {name: column[order] for name, column in measures.items()},
            None if extras is None else [extras[i] for i in order.tolist()],
            int(times.min()),
            int(times.max()),
        )

    @classmethod
    def join(cls, older: "Block", newer: "Block") -> "Block":
        """Both blocks in one; where both have a code, the newer counts."""
        names = [*older.measures, *(name for name in newer.measures if name not in older.measures)]
        return cls.build(
            newer.epoch,
            np.concatenate([older.codes, newer.codes]),
            {name: np.concatenate([older.column(name), newer.column(name)]) for name in names},
            None
            if older.extras is None and newer.extras is None
            else [*(older.extras or [None] * len(older)), *(newer.extras or [None] * len(newer))],
        )

    def __len__(self) -> int:
        return len(self.codes)

    def column(self, name: str) -> Floats:
        """The measure of each reading; all NaN if none has it."""
        column = self.measures.get(name)
        return np.full(len(self), np.nan) if column is None else column

    def take(self, chosen: Bools) -> "Block":
        """The chosen readings alone; at least one."""
        rows = chosen.nonzero()[0]
        return Block.build(
            self.epoch,
            self.codes[rows],
            {name: column[rows] for name, column in self.measures.items()},
            None if self.extras is None else [self.extras[i] for i in rows.tolist()],
        )

    def find(self, codes: Ints) -> tuple[Ints, Ints]:
        """Which of `codes` (places in it) are here, and at which rows."""
        rows = np.searchsorted(self.codes, codes)
        rows[rows == len(self.codes)] = 0
        places = (self.codes[rows] == codes).nonzero()[0]
        return places, rows[places]

    def entry(self, row: int) -> Entry:
        """What is known at `row`."""
        return entry_of(self.measures, self.extras, row)

    def renumber(self, numbers: Ints) -> "Block":
        """The same readings with device d called `numbers[d]`, which must keep the devices' order."""
        codes = codes_of(numbers[self.codes >> TIME_BITS], self.codes & TIME_MASK)
        return Block(self.epoch, codes, self.measures, self.extras, self.earliest, self.latest)


def entry_of(measures: Mapping[str, Floats], extras: Sequence[bytes | None] | None, row: int) -> Entry:
    """Row `row` of columns."""
    values = {name: value for name, column in measures.items() if (value := float(column[row])) == value}
    return Entry(values, extras[row] if extras else None)


class _Packed(msgspec.Struct, array_like=True):
    """A block in the changelog. Devices by name: their numbers are only this process's."""

    epoch: int
    devices: list[str]
    rows_device: bytes
    first_time: int
    rows_time: bytes
    measures: dict[str, bytes]
    extras: Extras | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode


def encode_block(block: Block, names: Sequence[str]) -> bytes:
    """`block` for the changelog; `names[d]` is the name of device d."""
    numbers, rows = np.unique(block.codes >> TIME_BITS, return_inverse=True)
    return _encode(
        _Packed(
            block.epoch,
            [names[number] for number in numbers.tolist()],
            _narrow(rows),
            block.earliest,
            _narrow((block.codes & TIME_MASK) - block.earliest),
            {name: column.astype("<f8").tobytes() for name, column in block.measures.items()},
            block.extras,
        )
    )


def decode_block(value: bytes, numbers: dict[str, int]) -> Block:
    """The block in a changelog value. Devices that `numbers` does not have are added to it."""
    packed = _decode(value)
    devices = np.array([numbers.setdefault(name, len(numbers)) for name in packed.devices], dtype=np.int64)
    rows = _wide(packed.rows_device)
    return Block.build(
        packed.epoch,
        codes_of(devices[rows], _wide(packed.rows_time) + packed.first_time),
        {name: np.frombuffer(column, dtype="<f8") for name, column in packed.measures.items()},
        packed.extras,
    )


def _narrow(values: Ints) -> bytes:
    """Values >= 0 in as few bytes as the greatest needs; the first byte says how many."""
    dtype = np.min_scalar_type(int(values.max()))
    return bytes([dtype.itemsize]) + values.astype(dtype.newbyteorder("<")).tobytes()


def _wide(data: bytes) -> Ints:
    return np.frombuffer(data, dtype=f"<u{data[0]}", offset=1).astype(np.int64)
