"""What the identity table of one partition and device type holds: accepted readings and device clocks."""

import numpy as np

from headrace.schemas.readings import Ints
from headrace.tables.seen_block import TIME_BITS, TIME_MASK, Block, codes_of, decode_block, encode_block

#: Blocks looked through after each batch for readings that have expired.
TIDIED_PER_BATCH = 2
#: The clock of a device of which nothing is known, and the epoch before anything was accepted.
NEVER = -1


class Accepted:
    """Accepted readings in blocks, the numbers that devices go by, and their clocks.

    Args:
        horizon_ms: readings this far behind their device's clock may go.
        join_below: blocks smaller than this are joined, so that small batches do not make many small blocks; count of
            readings.
    """

    def __init__(self, horizon_ms: int, join_below: int) -> None:
        self._horizon_ms = horizon_ms
        self._join_below = join_below
        self.epoch = NEVER
        self.numbers: dict[str, int] = {}
        # (2, devices or more): the largest event time accepted in the previous epoch, and in this one. Two, so that
        # forgetting an epoch needs no search for what a clock falls back to.
        self.clocks: Ints = np.full((2, 1024), NEVER, dtype=np.int64)
        self._names: list[str] = []
        # In the order in which they were accepted; a key is never used again.
        self._blocks: dict[int, Block] = {}
        self._next_key = 0
        self._cursor = 0
        self._changed: set[int] = set()
        self._stored: set[int] = set()
        self._stored_epoch = NEVER

    def __len__(self) -> int:
        """Readings that are kept."""
        return sum(map(len, self._blocks.values()))

    def blocks(self) -> list[Block]:
        """In the order in which they were accepted."""
        return list(self._blocks.values())

    def take(self, epoch: int, names: list[str], numbers: Ints, clocks: Ints, blocks: list[Block]) -> None:
        """Take in what a batch brought.

        Args:
            epoch: that the batch ended in.
            names: devices that were not known; they get the next numbers.
            numbers: (m,) int64, devices of the batch.
            clocks: (2, m) int64, their clocks.
            blocks: what was accepted; oldest first.
        """
        for name in names:
            self.numbers[name] = len(self._names)
            self._names.append(name)
        self._grow()
        turns = epoch - self.epoch if self.epoch != NEVER else 0
        self.epoch = epoch
        if turns:
            self.clocks = turned(self.clocks, turns)
            for key in [key for key, block in self._blocks.items() if block.epoch < epoch - 1]:
                self._drop(key)
        self.clocks[:, numbers] = clocks
        for block in blocks:
            if block.epoch >= epoch - 1:
                self._append(block)
        if turns:
            self._forget_devices()
        self._tidy()

    def _grow(self) -> None:
        missing = len(self._names) - self.clocks.shape[1]
        if missing > 0:
            more = np.full((2, max(missing, self.clocks.shape[1])), NEVER, dtype=np.int64)
            self.clocks = np.concatenate([self.clocks, more], axis=1)

    def _append(self, block: Block) -> None:
        """Add the newest block. Blocks of like size are joined, so there are few, and each reading moves seldom."""
        while self._blocks:
            key = next(reversed(self._blocks))
            older = self._blocks[key]
            if not self._joinable(older, block) or len(older) > 2 * len(block):
                break
            self._drop(key)
            block = Block.join(older, block)
        self._put(self._next_key, block)
        self._next_key += 1

    def _forget_devices(self) -> None:
        """Take devices of which nothing is known any more out of the table."""
        kept = (self.clocks[:, : len(self._names)] != NEVER).any(axis=0)
        if kept.all():
            return
        numbers = np.cumsum(kept) - 1
        self._names = [name for name, keep in zip(self._names, kept.tolist(), strict=True) if keep]
        self.numbers = {name: number for number, name in enumerate(self._names)}
        clocks = np.full((2, max(1024, len(self._names))), NEVER, dtype=np.int64)
        clocks[:, : len(self._names)] = self.clocks[:, : len(kept)][:, kept]
        self.clocks = clocks
        self._blocks = {key: block.renumber(numbers) for key, block in self._blocks.items()}

    def _tidy(self) -> None:
        """Look through a few blocks for readings behind the horizon of their devices, in turn, and drop them.

        Decides nothing: a message that old is not compared. So it does not matter when it happens.
        """
        keys = list(self._blocks)
        for _ in range(min(TIDIED_PER_BATCH, len(keys))):
            self._cursor = (self._cursor + 1) % len(keys)
            key = keys[self._cursor]
            if key not in self._blocks:
                continue
            block = self._blocks[key]
            clock = self.clocks[:, block.codes >> TIME_BITS].max(axis=0)
            live = (block.codes & TIME_MASK) >= clock - self._horizon_ms
            count = int(live.sum())
            if count == 0:
                self._drop(key)
            elif 2 * count < len(block):
                self._shrink(keys, key, block.take(live))

    def _shrink(self, keys: list[int], key: int, block: Block) -> None:
        """Put `block` for what was at `key`, joined with the block after it if they are small."""
        place = keys.index(key) + 1
        following = keys[place] if place < len(keys) else None
        newer = self._blocks.get(following) if following is not None else None
        if following is not None and newer is not None and self._joinable(block, newer):
            self._drop(key)
            key, block = following, Block.join(block, newer)
        self._put(key, block)

    def _joinable(self, older: Block, newer: Block) -> bool:
        return older.epoch == newer.epoch and len(older) + len(newer) <= self._join_below

    def _put(self, key: int, block: Block) -> None:
        self._blocks[key] = block
        self._changed.add(key)

    def _drop(self, key: int) -> None:
        del self._blocks[key]
        self._changed.add(key)

    # ---- the changelog

    def changes(self) -> dict[bytes, bytes | None]:
        """Newest value per key that changed since the last call; keys are 8 bytes, or empty for the epoch."""
        changes: dict[bytes, bytes | None] = {}
        for key in sorted(self._changed):
            block = self._blocks.get(key)
            if block is not None:
                changes[key.to_bytes(8, "big")] = encode_block(block, self._names)
                self._stored.add(key)
            elif key in self._stored:
                changes[key.to_bytes(8, "big")] = None
                self._stored.remove(key)
        self._changed.clear()
        if self.epoch != self._stored_epoch:
            changes[b""] = str(self.epoch).encode()
            self._stored_epoch = self.epoch
        return changes

    def restore(self, entries: dict[bytes, bytes]) -> None:
        """Take over what `changes` told of an earlier table; this one is empty."""
        epoch = entries.get(b"")
        if epoch is None:
            return
        self.epoch = self._stored_epoch = int(epoch)
        for name in sorted(entries.keys() - {b""}):
            key = int.from_bytes(name, "big")
            self._stored.add(key)
            self._next_key = key + 1
            block = decode_block(entries[name], self.numbers)
            if block.epoch < self.epoch - 1:
                self._changed.add(key)
                continue
            self._blocks[key] = block
        self._names = list(self.numbers)
        self._grow()
        for block in self._blocks.values():
            row = block.epoch - (self.epoch - 1)
            np.maximum.at(self.clocks[row], block.codes >> TIME_BITS, block.codes & TIME_MASK)
        self._forget_devices()


def turned(clocks: Ints, turns: int) -> Ints:
    """The clocks, (2, n), after the epoch advanced by `turns` > 0."""
    turned = np.full_like(clocks, NEVER)
    if turns == 1:
        turned[0] = clocks[1]
    return turned


def clock_before(devices: Ints, times: Ints, clocks: Ints) -> Ints:
    """Each message's device clock as it was just before the message, (n,).

    A message that is not accepted is behind the clock or at it, so the running maximum may take in all.
    """
    order = np.argsort(devices, kind="stable")
    devices = devices[order]
    # The device is in the upper bits, so the maximum starts over with each device.
    running = np.maximum.accumulate(codes_of(devices, times[order])) & TIME_MASK
    before = np.full(len(times), NEVER, dtype=np.int64)
    before[1:] = np.where(devices[1:] == devices[:-1], running[:-1], NEVER)
    result = np.empty_like(before)
    result[order] = np.maximum(before, clocks[devices])
    return result
