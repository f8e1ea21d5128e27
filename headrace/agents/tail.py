"""How rare a number is among those of its own series, beyond what was ever seen: an adaptive tail.

The tail begins at the quantile 1 − `share`, followed by stochastic approximation; what lies beyond it is a generalized
Pareto distribution, its shape and scale by the method of moments.

Source: Siffer et al. (2017), Anomaly Detection in Streams with Extreme Value Theory (SPOT), KDD; Hosking and Wallis
(1987), Parameter and Quantile Estimation for the Generalized Pareto Distribution, Technometrics 29, for the moments;
Tierney (1983), A Space-Efficient Recursive Procedure for Estimating a Quantile of an Unknown Distribution, for the
quantile.
"""

import numpy as np

from headrace.schemas.readings import Floats
from headrace.tables.grouping import Flags

#: Numbers per tail.
FIELDS = ("count", "mean", "begin", "excesses", "excess", "square")
COUNT, MEAN, BEGIN, EXCESSES, EXCESS, SQUARE = range(len(FIELDS))

#: Part of all numbers that lies in the tail, and numbers that it is learned over.
SHARE, MEMORY = 0.05, 2_000.0
#: Numbers before the quantile is followed, and before a number is judged.
STARTED, JUDGED = 20, 30
#: Where the quantile starts, in means.
START = 2.5
#: Least step of the quantile, in means.
LEAST_STEP = 0.02
#: Numbers are distances in usual ones. A tail never begins below this many, nor has a smaller mean excess.
LEAST_BEGIN, LEAST_EXCESS = 1.5, 0.3
#: The mean excess that is believed at first, in beginnings of the tail, as if seen so often.
PRIOR_EXCESS, PRIOR = 0.4, 4.0
#: Heaviest tail.
MOST_SHAPE = 0.4
#: One number counts at most as so many means in the mean, and as so many mean excesses in the excess.
MOST_MEANS, MOST_EXCESSES, MOST_BEGINS = 20.0, 30.0, 10.0


def rarity(tail: Floats, size: Floats) -> Floats:
    """−log10 of the share of numbers at least as large, (k, m); 0 below the tail, and until enough was seen.

    Args:
        tail: (fields, k, m), `FIELDS`.
        size: (k, m), distances in usual ones.
    """
    begin = np.maximum(tail[BEGIN], LEAST_BEGIN)
    weight = tail[EXCESSES] + PRIOR
    prior = PRIOR_EXCESS * begin
    mean = np.maximum((tail[EXCESS] * tail[EXCESSES] + PRIOR * prior) / weight, LEAST_EXCESS)
    square = (tail[SQUARE] * tail[EXCESSES] + PRIOR * 2 * prior * prior) / weight
    variance = np.maximum(square - mean * mean, LEAST_EXCESS * LEAST_EXCESS)
    shape = np.clip(0.5 * (1 - mean * mean / variance), 0.0, MOST_SHAPE)
    beyond = np.maximum(size - begin, 0.0) / (mean * (1 - shape))
    logarithm = np.where(shape < 1e-3, beyond, np.log1p(shape * beyond) / np.maximum(shape, 1e-3))
    rare = -np.log10(SHARE) + logarithm / np.log(10)
    return np.where((size > begin) & (tail[COUNT] > JUDGED), rare, 0.0)


def learn(tail: Floats, size: Floats, counts: Flags) -> None:
    """Bring the tail up to date in place with the sizes that count."""
    count = tail[COUNT] = tail[COUNT] + counts
    so_far = np.clip(count, 1.0, MEMORY)
    bounded = np.where(count > STARTED / 2, np.minimum(size, MOST_MEANS * tail[MEAN]), size)
    tail[MEAN] += np.where(counts, (bounded - tail[MEAN]) / so_far, 0.0)
    tail[BEGIN] = np.where(counts & (count == STARTED), START * tail[MEAN], tail[BEGIN])
    follows = counts & (count > STARTED)
    beyond = follows & (size > tail[BEGIN])
    most = np.where(tail[EXCESSES] > 5, MOST_EXCESSES * tail[EXCESS], MOST_BEGINS * tail[BEGIN])
    excess = np.minimum(size - tail[BEGIN], most)
    number = np.clip(tail[EXCESSES] + 1, 1.0, MEMORY * SHARE)
    tail[EXCESSES] = np.where(beyond, number, tail[EXCESSES])
    tail[EXCESS] += np.where(beyond, (excess - tail[EXCESS]) / number, 0.0)
    tail[SQUARE] += np.where(beyond, (excess * excess - tail[SQUARE]) / number, 0.0)
    # A beginning that was far out once must come back.
    step = np.maximum(tail[MEAN], tail[BEGIN] / 4) * np.maximum(2.0 / np.maximum(count, 1.0), LEAST_STEP)
    moved = np.maximum(tail[BEGIN] + step * np.where(size > tail[BEGIN], 1 - SHARE, -SHARE), 0.0)
    tail[BEGIN] = np.where(follows, moved, tail[BEGIN])
