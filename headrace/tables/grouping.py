"""Brings the readings of a batch together by device, and follows each device's own clock through them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from headrace.schemas.readings import Floats, Ints

Flags = NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)

#: A clock that has not started: far before any event time, far enough from the end of int64 to add to.
NEVER = -(1 << 62)

#: Up to so many devices their numbers fit 16 bits, which numpy sorts by radix.
_RADIX_LIMIT = 1 << 16


class Numbering:
    """Gives every name a number, from 0 in order of appearance; about 150 bytes a name.

    A number is no state: it may be given before a batch finishes, and may differ after a restart.

    >>> numbering = Numbering(); numbering.numbers(["b", "a", "b"]).tolist()
    [0, 1, 0]
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._by_name: list[tuple[str, int]] = []
        self.add(names)

    def __len__(self) -> int:
        return len(self.names)

    def add(self, names: Iterable[str]) -> None:
        """Number the names that have no number yet."""
        for name in names:
            if name not in self._numbers:
                # A copy: those of a batch lie between what is freed with it, and would keep that memory from going.
                own = name[:1] + name[1:]
                self._numbers[own] = len(self.names)
                self.names.append(own)

    def by_name(self) -> list[tuple[str, int]]:
        """Names and numbers, sorted: an order that does not depend on which came first."""
        if len(self._by_name) != len(self.names):
            self._by_name = sorted(self._numbers.items())
        return self._by_name

    def number(self, name: str) -> int | None:
        """The number of `name`, or None."""
        return self._numbers.get(name)

    def numbers(self, names: Sequence[str]) -> Ints:
        """The number of each name, (n,) int64; new names get the next ones."""
        try:
            return np.fromiter(map(self._numbers.__getitem__, names), np.int64, len(names))
        except KeyError:
            self.add(names)
            return np.fromiter(map(self._numbers.__getitem__, names), np.int64, len(names))


class Groups(NamedTuple):
    """Readings of a batch brought together by device, in log order within a device.

    Args:
        order: (n,) int64, place in the batch's columns.
        devices: (n,) int64, device number.
        times: (n,) int64, event time, ms.
        head: (n,) bool, where a device begins.
        heads, tails: (g,) int64, place of the first and last reading of each device.
        rank: (n,) int64, which of the g devices.
        before, after: (n,) int64, the device's own clock (its largest event time) before and after the reading; ms.
    """

    order: Ints
    devices: Ints
    times: Ints
    head: Flags
    heads: Ints
    tails: Ints
    rank: Ints
    before: Ints
    after: Ints


def group(devices: Ints, times: Ints, clocks: Ints) -> Groups:
    """Bring readings together by device.

    Args:
        devices: (n,) device number per reading, in log order; n >= 1.
        times: (n,) event time, ms.
        clocks: (d,) own clock per device number before the batch, ms; `NEVER` where it has none.
    """
    keys = devices.astype(np.uint16) if len(clocks) <= _RADIX_LIMIT else devices
    order = np.argsort(keys, kind="stable")
    devices, times = devices[order], times[order]
    head = np.empty(len(order), dtype=np.bool_)
    head[0] = True
    np.not_equal(devices[1:], devices[:-1], out=head[1:])
    heads = np.flatnonzero(head)
    tails = np.append(heads[1:], len(order)) - 1
    rank = np.cumsum(head) - 1
    known = clocks[devices[heads]]

    # Every device's times are lifted above the one before it: one running maximum then serves them all.
    lifted = times.copy()
    lifted[heads] = np.maximum(times[heads], known)
    low = lifted.min()
    lift = rank * (lifted.max() - low + 1)
    after = np.maximum.accumulate(lifted - low + lift) - lift + low
    before = np.empty_like(after)
    before[1:] = after[:-1]
    before[heads] = known
    return Groups(order, devices, times, head, heads, tails, rank, before, after)


def rounds(ranks: Ints) -> list[Ints]:
    """Places of the first reading of every device, of the second of every device, and so on.

    Args:
        ranks: (n,) int64, which device, ascending.

    >>> [places.tolist() for places in rounds(np.array([0, 0, 1, 2, 2]))]
    [[0, 2, 3], [1, 4]]
    """
    if not len(ranks):
        return []
    heads = np.flatnonzero(np.append(True, ranks[1:] != ranks[:-1]))
    position = np.arange(len(ranks)) - np.repeat(heads, np.diff(np.append(heads, len(ranks))))
    order = np.argsort(position, kind="stable")
    return np.split(order, np.cumsum(np.bincount(position))[:-1])


def measure_matrix(columns: Mapping[str, Floats], length: int, measures: Numbering) -> Floats:
    """Columns of (length,) as one matrix, (m, length) float64, a row per number of `measures`; NaN where there is none.

    A negative zero becomes zero: which of the two is the smaller depends on their order.
    """
    measures.add(columns)
    matrix = np.full((len(measures), length), np.nan)
    for row, name in enumerate(measures.names):
        column = columns.get(name)
        if column is not None:
            np.add(column, 0.0, out=matrix[row])
    return matrix


def grown(array: NDArray[Scalar], shape: tuple[int, ...], fill: float) -> NDArray[Scalar]:
    """A copy of `array` enlarged to `shape`, what is new filled with `fill`; zeros take no memory until written."""
    larger = np.full(shape, fill, dtype=array.dtype) if fill else np.zeros(shape, dtype=array.dtype)
    larger[tuple(slice(0, length) for length in array.shape)] = array
    return larger
