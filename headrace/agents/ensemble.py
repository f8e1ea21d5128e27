"""The detector that ships as default: bursts of readings that their series does not expect."""

from collections.abc import Mapping

import numpy as np

from headrace.agents import tail
from headrace.agents.detector import Moment, Verdict, check
from headrace.schemas.readings import Floats

_TAIL = len(tail.FIELDS)
#: Readings that a burst is averaged over, and innovations known before tails learn.
BURST, LEARNED = 8.0, 20
#: Rarity counts up to 1 in a million.
MOST_RARITY = 6.0
#: Readings that the usual burst is learned over: three horizons, at least so many; and before a burst is judged.
HORIZONS, LEAST_MEMORY = 3.0, 3_000.0
#: Added to the standard deviation of bursts, so that a series which never surprised is not judged by rounding.
LEAST_DEVIATION = 0.05
#: Sum of squared distances of bursts that is believed at first: a young series has not had its surprises yet.
PRIOR_SQUARES = 3.0
#: Probability of a real anomaly by score s: 1 / (1 + (MIDDLE / s) ** STEEPNESS), fitted by
#: `benchmarks/detectors.py --calibrate` on four categories of NAB: the share of anomalies that somebody had marked.
MIDDLE, STEEPNESS = 3.6, 2.9


class Ensemble:
    """Anomaly when a series is, for some readings, as surprising as it has hardly been before.

    Two members judge each reading: how rare its innovation is (what neither the hour of the day and week nor the
    reading before explains), and how rare its distance from what is expected at this hour. Each is the share of the
    series' own readings at least as far off, by an adaptive tail, so that heavy tails are not taken for anomalies.
    The rarer of the two, −log10, is averaged over about eight readings; the score is how many standard deviations that
    average is above its own mean, so that what a series does every day does not count.

    Args:
        threshold: score from which a reading is an anomaly; > 0.
        warm_up: readings of a series before the first anomaly, count; >= 50.
    Raises:
        ConfigError: a bound above is broken.
    Source: tails see `headrace.agents.tail`; the average against its own distribution is the anomaly likelihood of
        Ahmad et al. (2017), Unsupervised real-time anomaly detection for streaming data, Neurocomputing 262.
    """

    name = "ensemble"
    version = 1
    fields = (
        *(f"innovation_{field}" for field in tail.FIELDS),
        *(f"distance_{field}" for field in tail.FIELDS),
        "burst", "mean", "variance",
    )  # fmt: skip

    def __init__(self, threshold: float = 3.5, warm_up: int = 300) -> None:
        check(self.name, threshold=(threshold, 0.0, False), warm_up=(warm_up, 50, True))
        self.threshold = threshold
        self._warm_up = warm_up

    def step(self, state: Floats, now: Moment) -> Verdict:
        """See `headrace.agents.detector.Detector`."""
        # Both tails at once: (fields, 2, k, m).
        tails, (burst, mean, variance) = state[: 2 * _TAIL].reshape(2, _TAIL, *now.values.shape), state[2 * _TAIL :]
        tails = tails.swapaxes(0, 1)
        surprise = np.abs(now.innovation) / now.usual_innovation
        distance = np.abs(now.residual) / (now.usual + now.spread)
        sizes = np.stack([surprise, distance])
        rare = np.where(now.known, tail.rarity(tails, sizes).max(axis=0), 0.0)
        tail.learn(tails, sizes, now.known & (now.count > LEARNED))

        counted = now.count + 1
        burst += (np.minimum(rare, MOST_RARITY) - burst) / np.minimum(counted, BURST)
        above = burst - mean
        deviation = np.sqrt(variance + PRIOR_SQUARES / counted) + LEAST_DEVIATION
        score = np.where(counted > self._warm_up, above / deviation, 0.0)
        share = 1 / np.minimum(counted, np.maximum(HORIZONS * now.horizon, LEAST_MEMORY))
        variance += (above * above - variance) * share
        mean += above * share
        chance = np.where(score > 0, 1 / (1 + (MIDDLE / np.maximum(score, 1e-9)) ** STEEPNESS), 0.0)
        return Verdict(
            score,
            {
                "expected": now.expected,
                "usual_distance": now.usual,
                "distance": now.residual,
                "rarity": rare,
                "score": score,
                "probability": chance,
            },
        )

    def says(self, value: float, numbers: Mapping[str, float], unit: str) -> str:
        """See `headrace.agents.detector.Detector`."""
        side = "above" if numbers["distance"] > 0 else "below"
        return (
            f"{abs(numbers['distance']):.4g} {unit} {side} what this sensor shows at this hour "
            f"({numbers['expected']:.4g} ± {numbers['usual_distance']:.2g}); its last readings are "
            f"{numbers['score']:.1f} σ more surprising than usual"
        )
