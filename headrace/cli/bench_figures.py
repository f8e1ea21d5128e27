"""The figures of `headrace bench`, as `benchmarks/budget.toml` describes them."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import headrace
from headrace.cli.bench_machine import find_program
from headrace.engine.errors import ConfigError

#: Beside the package in a clone.
FOLDER = Path(headrace.__file__).parent.parent / "benchmarks"

#: What is run when no figure is named: by CI and before a push; for a release.
Form = Literal["short", "full"]

#: What no package of Python brings.
Program = Literal["java", "mvn", "mosquitto"]

#: Its Debian package.
PACKAGES: dict[Program, str] = {"java": "default-jre-headless", "mvn": "maven", "mosquitto": "mosquitto"}

#: One bound for every variant but the baseline, or by variant: those that are not named are not judged.
Bound = float | dict[str, float] | None


class Figure(BaseModel):
    """One figure: variants of a script that are run in turns, and judged by their ratio to the baseline.

    Args:
        about: what is measured, and beside what.
        script: file in the benchmarks folder; prints `{"value": number, …}` for one run of one variant, or
            `{"cannot": reason}` where the variant cannot do this job.
        unit: of the value.
        payload: what a message is, with its size.
        guarantee: what is promised of a message when it counts.
        limit: what limits the figure now, as the profile shows.
        value: the key of the script's output that is the value.
        better: `more` or `less`.
        baseline: the variant that ratios are against; the first one if left out.
        variants: arguments of the script by variant.
        axis, points, arguments: instead of variants, a curve: a variant per point, `{}` in its arguments.
        least_ratio, most_ratio: bounds of measured ÷ baseline, see `Bound`.
        form: `short` if it is part of both.
        short: options with values by variant, in the short form instead of the usual ones.
        runs, short_runs: of each variant that count, in the full and the short form; by default those of the form.
        warm_up: whether a run of each variant goes before those; not where a run warms itself up.
        most_seconds: of one run; it is ended then.
        programs: that runs start, which must be on the PATH.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    about: str
    script: str
    unit: str
    payload: str
    guarantee: str
    limit: str = ""
    value: str = "value"
    better: Literal["more", "less"] = "more"
    baseline: str
    variants: dict[str, list[str]] = Field(min_length=1)
    axis: str = ""
    points: list[int] = []
    least_ratio: Bound = None
    most_ratio: Bound = None
    form: Form = "full"
    short: dict[str, list[str]] = {}
    runs: int | None = Field(None, ge=1)
    short_runs: int | None = Field(None, ge=1)
    warm_up: bool = True
    most_seconds: float = Field(600, gt=0)
    programs: list[Program] = []

    @model_validator(mode="before")
    @classmethod
    def _curve(cls, table: Any) -> Any:
        if isinstance(table, dict) and "points" in table:
            arguments = table.pop("arguments", [])
            table["variants"] = {
                str(point): [each.replace("{}", str(point)) for each in arguments] for point in table["points"]
            }
        if isinstance(table, dict) and table.get("variants"):
            table.setdefault("baseline", next(iter(table["variants"])))
        return table

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        bounds = [each for each in (self.least_ratio, self.most_ratio) if isinstance(each, dict)]
        named = [self.baseline, *self.short, *(name for bound in bounds for name in bound)]
        unknown = [name for name in dict.fromkeys(named) if name not in self.variants]
        if unknown:
            raise ValueError(f"no variant named {', '.join(unknown)}; there are {', '.join(self.variants)}")
        if bool(self.axis) != bool(self.points):
            raise ValueError("a curve has an axis and points")
        return self

    def command(self, variant: str, form: Form) -> list[str]:
        """The script and its arguments, without the folder."""
        usual, more = self.variants[variant], self.short.get(variant, []) if form != "full" else []
        kept = [
            text
            for place, text in enumerate(usual)
            if text not in more[::2] and (place == 0 or usual[place - 1] not in more[::2])
        ]
        return [self.script, *kept, *more]

    def bounds(self, variant: str) -> tuple[float | None, float | None]:
        """Least and most ratio of a variant."""
        if variant == self.baseline:
            return None, None
        low, high = (
            bound.get(variant) if isinstance(bound, Mapping) else bound for bound in (self.least_ratio, self.most_ratio)
        )
        return low, high


def load_figures(path: Path) -> dict[str, Figure]:
    """The figures of a budget file, by name.

    Raises:
        ConfigError: the file is not there, or every mistake in it.
    """
    if not path.exists():
        raise ConfigError(f"{path} is not there: benchmarks run from a clone of the repository")
    found: dict[str, Figure] = {}
    wrong: list[str] = []
    for name, table in tomllib.loads(path.read_text()).items():
        try:
            found[name] = Figure(name=name, **table)
        except ValidationError as error:
            places = ((".".join(map(str, each["loc"])), each["msg"]) for each in error.errors())
            wrong += [f"{path}: {name}{'.' if place else ''}{place}: {text}" for place, text in places]
    if wrong:
        raise ConfigError(*wrong)
    return found


def chosen(figures: Mapping[str, Figure], names: tuple[str, ...], form: Form) -> list[Figure]:
    """Those named, or those of the form.

    Raises:
        ConfigError: a name that is none.
    """
    unknown = [name for name in names if name not in figures]
    if unknown:
        raise ConfigError(f"no benchmark named {', '.join(unknown)}; there are {', '.join(figures)}")
    if names:
        return [figures[name] for name in dict.fromkeys(names)]
    return [figure for figure in figures.values() if form in (figure.form, "full")]


def check_programs(figures: Iterable[Figure]) -> None:
    """Before hours of measuring: that the programs of all figures are there.

    Raises:
        ConfigError: some are not; says which figures need each.
    """
    figures = list(figures)
    missing = [
        f"{program} is not installed (Debian: {PACKAGES[program]}); it is for {', '.join(needed)}"
        for program in PACKAGES
        if (needed := [each.name for each in figures if program in each.programs]) and find_program(program) is None
    ]
    if missing:
        raise ConfigError(*missing)
