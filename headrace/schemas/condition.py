"""Conditions of alert rules: on a measure, on an expression over several, on silence, on a connection, on anomalies.

Which kind a condition is shows from its fields: `metric` and `operator`; `expression`; `silent_for`; `offline_for`;
`anomaly_score`. JSON has the camelCase names of the public schema, TOML and Python the others; both are read.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, StringConstraints, Tag, model_validator
from pydantic.alias_generators import to_camel

from headrace.schemas.expression import MAX_LENGTH
from headrace.schemas.rule_model import LongSeconds, NoSwitch, Number, RuleModel, Seconds, SomeSeconds

Operator = Literal[">", "<", ">=", "<=", "=="]
#: No control characters: no database takes NUL, no terminal the others.
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
#: Of a learned absence, unless it says otherwise: usual intervals, and seconds.
INTERVALS, LEAST = 5.0, 60.0
#: Readings that "n of m" looks back at, at the most.
MOST_OF = 100
#: See `_Sustained`.
Gap = Literal["hold", "reset", "no-data"]


class _Condition(RuleModel):
    @property
    def brief(self) -> str:
        """What must hold, as alerts say it."""
        return str(self)


class OutOf(RuleModel):
    """On at least `n` of the last `m` readings.

    Args:
        n: readings on which it holds, count.
        m: readings looked at, count.
    """

    n: Annotated[int, Field(ge=1, le=MOST_OF), NoSwitch]
    m: Annotated[int, Field(ge=1, le=MOST_OF), NoSwitch]

    @model_validator(mode="after")
    def _ordered(self) -> "OutOf":
        if self.n > self.m:
            raise ValueError(f"n is {self.n}: it cannot be more than m, {self.m}")
        return self


class _Sustained(_Condition):
    """What all conditions on values have.

    Args:
        duration: seconds of event time for which it must hold, from the first reading on which it does; 0 for at once.
        clear_for: seconds of event time for which it must not hold any more until the alert ends; 0 for at once.
        out_of: "n of m": it holds when it does on n of the last m readings.
        gap: what happens to a streak when no reading of the metric comes for longer than `max_gap`. hold: nothing, what
            was last is taken to hold; reset: a streak that has not triggered begins anew, an open alert stays; no-data:
            as reset, and an open alert ends, `max_gap` after the last reading.
        max_gap: seconds of event time; needed unless `gap` is "hold".
    """

    duration: Seconds = 0.0
    clear_for: Seconds = 0.0
    out_of: OutOf | None = None
    gap: Gap = "hold"
    max_gap: SomeSeconds | None = None

    @model_validator(mode="after")
    def _gap_fits(self) -> "_Sustained":
        if (self.gap == "hold") != (self.max_gap is None):
            raise ValueError(
                "max_gap says from when on a gap counts: give it with gap 'reset' or 'no-data', and only then"
            )
        return self

    def __str__(self) -> str:
        often = f" on {self.out_of.n} of {self.out_of.m} readings" if self.out_of else ""
        return f"{self.brief}{often} for {self.duration:g} s" if self.duration else f"{self.brief}{often}"


class ThresholdCondition(_Sustained):
    """`metric` `operator` `threshold`.

    Args:
        metric: name of a measure.
        operator: how the metric compares with the threshold when the condition holds.
        threshold: in the metric's unit; with `rate_per` in that per so many seconds.
        clear: hysteresis: once an alert is open, it ends only when the metric is not `operator` this any more either;
            the same unit. For `>` it is at most the threshold, for `<` at least; None for the threshold itself.
        rate_per: compare not the metric but its change from the reading before, per so many seconds.
    """

    metric: Name
    operator: Operator
    threshold: Number
    clear: Number | None = None
    rate_per: SomeSeconds | None = None

    @model_validator(mode="after")
    def _clear_fits(self) -> "ThresholdCondition":
        if self.clear is None:
            return self
        if self.operator == "==":
            raise ValueError("clear: an == condition has no other side to come back to")
        above = self.operator in (">", ">=")
        if self.clear > self.threshold if above else self.clear < self.threshold:
            side = "at most" if above else "at least"
            raise ValueError(f"clear is {self.clear:g}: with {self.operator} it is {side} the threshold")
        return self

    @property
    def brief(self) -> str:
        """What must hold, as alerts say it: `temperature > 40`."""
        what = f"{self.metric} per {self.rate_per:g} s" if self.rate_per else self.metric
        return f"{what} {self.operator} {self.threshold:g}"


class ExpressionCondition(_Sustained):
    """A formula over several metrics of one reading that is true: `temperature > 30 and humidity > 80`.

    Args:
        expression: numbers and names of metrics with + - * / **, comparisons, `and`, `or`, `not` and functions such as
            `abs` and `log`. It says nothing about a reading that lacks one of its metrics.
    """

    expression: Annotated[str, StringConstraints(min_length=1, max_length=MAX_LENGTH)]

    @property
    def brief(self) -> str:
        """What must hold, as alerts say it."""
        return self.expression


class AbsenceCondition(_Condition):
    """Nothing has come from a device for some time, measured in append time.

    Args:
        silent_for: seconds, at least 1; "learned": `intervals` times the device's own usual interval.
        intervals: count, with "learned"; at least 2.
        least: with "learned", silence that is never too long, seconds.
    """

    silent_for: LongSeconds | Literal["learned"]
    intervals: Annotated[float, Field(ge=2, le=1000), NoSwitch] = INTERVALS
    least: Seconds = LEAST

    @model_validator(mode="after")
    def _learned_fits(self) -> "AbsenceCondition":
        if self.silent_for != "learned":
            for name, given, default in (("intervals", self.intervals, INTERVALS), ("least", self.least, LEAST)):
                if given != default:
                    raise ValueError(f'{name}: goes with silent_for "learned"; leave it out')
        return self

    def __str__(self) -> str:
        if self.silent_for == "learned":
            return f"silent for {self.intervals:g} times its usual interval"
        return f"silent for {self.silent_for:g} s"


class OfflineCondition(_Condition):
    """A device's MQTT connection to headrace's own listener has ended, and none has begun for a while.

    Args:
        offline_for: seconds; 0 for at once.
    """

    offline_for: Seconds

    def __str__(self) -> str:
        return f"offline for {self.offline_for:g} s" if self.offline_for else "offline"


class AnomalyCondition(_Condition):
    """A detector has found an anomaly.

    Args:
        anomaly_score: least score, by the measure of the detector; 0 for any.
        metric: of this metric only.
        detector: found by this detector only.
        clear_after: seconds of event time without such an anomaly after which the alert ends.
    """

    anomaly_score: Annotated[float, Field(ge=0), NoSwitch]
    metric: Name | None = None
    detector: Name | None = None
    clear_after: LongSeconds = 600.0

    def __str__(self) -> str:
        of = f" of {self.metric}" if self.metric else ""
        by = f" by {self.detector}" if self.detector else ""
        return f"anomaly{of}{by} with a score of at least {self.anomaly_score:g}"


#: Kind of condition by the field that only it has.
KINDS = {
    "operator": "threshold",
    "expression": "expression",
    "silent_for": "absence",
    "offline_for": "offline",
    "anomaly_score": "anomaly",
}


def kind_of(condition: Any) -> str:
    """Which kind a condition is, or would be: what fits no kind is taken for a threshold, whose mistakes say most."""
    if isinstance(condition, BaseModel):
        names = set(type(condition).model_fields)
    elif isinstance(condition, dict):
        names = set(condition)
    else:
        return "threshold"
    return next((kind for field, kind in KINDS.items() if {field, to_camel(field)} & names), "threshold")


Condition = Annotated[
    Annotated[ThresholdCondition, Tag("threshold")]
    | Annotated[ExpressionCondition, Tag("expression")]
    | Annotated[AbsenceCondition, Tag("absence")]
    | Annotated[OfflineCondition, Tag("offline")]
    | Annotated[AnomalyCondition, Tag("anomaly")],
    Discriminator(kind_of),
]
#: Conditions that are judged reading by reading.
ValueCondition = ThresholdCondition | ExpressionCondition
