"""moto's server, with shards that are split and merged as AWS does it. Run it with `-p PORT`.

moto 5 moves the records of a split or merged shard, goes on writing to the closed one, never says that it has ended,
and gives requests that come together the same sequence numbers.
"""

import hashlib
import sys
from threading import RLock
from typing import Any

from moto.kinesis import models
from moto.kinesis.utils import decompose_shard_iterator
from moto.server import main

_lock = RLock()
_put = models.Stream.put_record
_get = models.KinesisBackend.get_records


def add_shard(stream: Any, start: int, end: int, *parents: Any) -> None:
    """An open shard, instead of its parents, which keep their records."""
    for parent in parents:
        assert parent.is_open
        parent.is_open = False
    ids = [parent.shard_id for parent in parents] + [None]
    shard = models.Shard(len(stream.shards), start, end, ids[0], ids[1])
    stream.shards[shard.shard_id] = shard


def split_shard(self: Any, shard_to_split: str, new_starting_hash_key: str) -> None:
    """SplitShard."""
    with _lock:
        parent, middle = self.shards[shard_to_split], int(new_starting_hash_key)
        add_shard(self, parent.starting_hash, middle - 1, parent)
        parent.is_open = True
        add_shard(self, middle, parent.ending_hash, parent)


def merge_shards(self: Any, shard_to_merge: str, adjacent_shard_to_merge: str) -> None:
    """MergeShards."""
    with _lock:
        low, high = sorted(
            [self.shards[shard_to_merge], self.shards[adjacent_shard_to_merge]], key=lambda shard: shard.starting_hash
        )
        add_shard(self, low.starting_hash, high.ending_hash, low, high)


def get_shard_for_key(self: Any, partition_key: str, explicit_hash_key: str) -> Any:
    """The open shard of a key."""
    place = int(
        explicit_hash_key or hashlib.md5(partition_key.encode(), usedforsecurity=False).hexdigest(),
        10 if explicit_hash_key else 16,
    )
    return next(
        shard for shard in self.shards.values() if shard.is_open and shard.starting_hash <= place <= shard.ending_hash
    )


def put_record(self: Any, *arguments: Any) -> Any:
    """One at a time."""
    with _lock:
        return _put(self, *arguments)


def get_records(self: Any, stream_arn: Any, shard_iterator: str, limit: Any) -> Any:
    """No next iterator at the end of a closed shard."""
    with _lock:
        following, records, behind = _get(self, stream_arn, shard_iterator, limit)
        name, shard_id, last = decompose_shard_iterator(following)
        shard = self.streams[name].shards[shard_id]
        ended = not shard.is_open and int(last) >= shard.get_max_sequence_number()
        return None if ended else following, records, behind


models.Stream.split_shard = split_shard  # type: ignore[method-assign]
models.Stream.merge_shards = merge_shards  # type: ignore[method-assign]
models.Stream.get_shard_for_key = get_shard_for_key  # type: ignore[method-assign]
models.Stream.put_record = put_record  # type: ignore[assignment,method-assign]
models.KinesisBackend.get_records = get_records  # type: ignore[method-assign]

if __name__ == "__main__":
    main(sys.argv[1:])
