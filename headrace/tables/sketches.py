"""Percentile sketches: how many values fell into each of a few buckets of growing width, many sketches at once.

Buckets as in DDSketch: value x is in bucket ceil(log_γ x), so whatever is taken from a bucket is off by a bounded part
of the value. When there are more buckets than fit, γ is squared, which merges each two neighbours, as in UDDSketch: the
bound grows (see `error`), for small values and large ones alike. What a sketch holds depends on its values alone,
neither on their order nor on how they came together: see `test_order_and_merging_do_not_matter`.

Sources: Masson, Rim, Lee (2019), DDSketch, PVLDB 12; Epicoco et al. (2020), Fast and Accurate Quantile Estimation with
UDDSketch, IEEE Access 8.

A sketch is a row of `WIDTH` int64: how often γ was squared, then its buckets in ascending order of value, each
(key << 32 | count), 0 where there is none. Key 0 is the value zero, key ±(index + `_ZERO`) others.
"""

import math
from collections.abc import Sequence

import numpy as np

from headrace.schemas.readings import Floats, Ints

#: int64 per sketch: 1 KiB.
WIDTH = 128
_MOST = WIDTH - 1
#: Relative error of a sketch whose values fit `_MOST` buckets without merging any.
FINEST = 0.001
_LOG_GAMMA = math.log((1 + FINEST) / (1 - FINEST))
#: Makes the index of the smallest positive number positive.
_ZERO = 1 << 20
_COUNT_BITS = 32


def keys(values: Floats) -> Ints:
    """The finest bucket of each value; values are not NaN, the smallest of all numbers are taken for zero."""
    size = np.abs(values)
    zero = size < np.finfo(np.float64).tiny
    index = np.ceil(np.log(np.where(zero, 1.0, size)) / _LOG_GAMMA).astype(np.int64) + _ZERO
    return np.where(zero, 0, np.where(values < 0, -index, index))


def add(sketches: Ints, rows: Ints, finest: Ints, counts: Ints) -> Ints:
    """Sketches with more values in them.

    Args:
        sketches: (k, WIDTH), as they are.
        rows: (n,) which sketch gets a value.
        finest: (n,) the value's bucket, from `keys`.
        counts: (n,) how often.
    Returns:
        (k, WIDTH): as they become.
    """
    which, place = np.nonzero(sketches[:, 1:])
    packed = sketches[which, place + 1]
    levels = sketches[:, 0].copy()
    return _packed(
        levels,
        np.concatenate([which, rows]),
        np.concatenate([packed >> _COUNT_BITS, _merged(finest, levels[rows])]),
        np.concatenate([packed & ((1 << _COUNT_BITS) - 1), counts]),
    )


def merged(first: Ints, second: Ints) -> Ints:
    """Row by row the sketch of the values of both; (k, WIDTH) each."""
    levels = np.maximum(first[:, 0], second[:, 0])
    parts = []
    for sketches in (first, second):
        which, place = np.nonzero(sketches[:, 1:])
        packed = sketches[which, place + 1]
        key = _merged(packed >> _COUNT_BITS, (levels - sketches[:, 0])[which])
        parts.append((which, key, packed & ((1 << _COUNT_BITS) - 1)))
    return _packed(levels, *map(np.concatenate, zip(*parts, strict=True)))


def _merged(key: Ints, times: Ints) -> Ints:
    """Buckets after γ was squared `times` more times: index i becomes ceil(i / 2^times)."""
    index = -((_ZERO - np.abs(key)) >> times)
    return np.where(key == 0, 0, np.sign(key) * (index + _ZERO))


def _packed(levels: Ints, rows: Ints, key: Ints, counts: Ints) -> Ints:
    """Sketches of these buckets, any of them several times; merges neighbours until they fit. Changes `levels`."""
    while True:
        order = np.lexsort((key, rows))
        rows, key, counts = rows[order], key[order], counts[order]
        head = np.ones(len(rows), dtype=np.bool_)
        head[1:] = (rows[1:] != rows[:-1]) | (key[1:] != key[:-1])
        heads = np.flatnonzero(head)
        if len(heads):
            counts = np.add.reduceat(counts, heads)
        rows, key = rows[heads], key[heads]
        used = np.bincount(rows, minlength=len(levels))
        over = used > _MOST
        if not over.any():
            break
        levels[over] += 1
        key = _merged(key, over[rows].astype(np.int64))
    out = np.zeros((len(levels), WIDTH), dtype=np.int64)
    out[:, 0] = levels
    out[rows, 1 + np.arange(len(rows)) - (np.cumsum(used) - used)[rows]] = key << _COUNT_BITS | counts
    return out


def total(sketches: Ints) -> Ints:
    """How many values each holds, (k,) for (k, WIDTH)."""
    counts: Ints = (sketches[:, 1:] & ((1 << _COUNT_BITS) - 1)).sum(axis=1)
    return counts


def error(sketches: Ints) -> Floats:
    """Relative error of what `percentiles` says, (k,) for (k, WIDTH): at most this part of the value itself."""
    gamma = np.exp(_LOG_GAMMA * np.exp2(sketches[..., 0]))
    return 1 - 2 / (gamma + 1)


def percentiles(sketches: Ints, wanted: Sequence[float]) -> Floats:
    """Percentiles by nearest rank: of n values in ascending order, the one at place floor(p ÷ 100 × (n − 1)).

    Args:
        sketches: (k, WIDTH).
        wanted: (q,) percentages, 0 to 100.
    Returns:
        (k, q); NaN where the sketch is empty.
    """
    packed = sketches[:, 1:]
    key, counts = packed >> _COUNT_BITS, packed & ((1 << _COUNT_BITS) - 1)
    reached = np.cumsum(counts, axis=1)
    rank = np.floor(np.array(wanted) / 100 * np.maximum(reached[:, -1:] - 1, 0))
    place = (reached[:, np.newaxis, :] > rank[:, :, np.newaxis]).argmax(axis=2)
    chosen = np.take_along_axis(key, place, axis=1)
    log_gamma = _LOG_GAMMA * np.exp2(sketches[:, :1])
    # The value between the bucket's bounds γ^(i-1) and γ^i that is off by the same part from both.
    with np.errstate(over="ignore"):
        size = np.exp(log_gamma * (np.abs(chosen) - _ZERO)) * (2 / (np.exp(log_gamma) + 1))
    size = np.minimum(size, np.finfo(np.float64).max)
    found = np.where(chosen == 0, 0.0, np.sign(chosen) * size)
    return np.where(reached[:, -1:] > 0, found, np.nan)
