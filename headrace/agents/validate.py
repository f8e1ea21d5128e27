"""Fourth stage of ingest: are the values what the device type says? Converts them to its units on the way."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from headrace.agents.decode import Document, Reasons, kind
from headrace.schemas.device_type import DeviceType, FieldSpec, Source
from headrace.schemas.readings import Floats
from headrace.schemas.units import IDENTITY

Mistakes = dict[int, list[str]]
_TYPES: dict[str, set[type]] = {"number": {int, float}, "integer": {int, float}, "boolean": {bool}, "text": {str}}
#: Whole numbers beyond this do not fit a float exactly.
LARGEST_EXACT = 2.0**53


def validate(
    device_type: DeviceType, documents: Sequence[Document], names: Collection[str], reasons: Reasons
) -> dict[str, Floats]:
    """The measures by name, each (n,) float64 in the unit of the device type; NaN where a message has none.

    Only measures that some message has. A message with any wrong value is refused whole, with all that is wrong.

    Args:
        device_type: says what is right.
        documents: the payloads.
        names: all names in any of the documents.
        reasons: gets an entry for each message that is refused.
    """
    mistakes: Mistakes = {}
    measures: dict[str, Floats] = {}
    for name, spec in device_type.fields.items():
        sources = [source for source in device_type.sources[name] if source.name in names]
        if spec.type == "text":
            _check_texts(name, sources, documents, mistakes)
            given = None
        else:
            given = _column(name, spec, sources, documents, mistakes)
            if given is not None:
                _check_range(name, spec, given, mistakes)
                measures[name] = given
        if not spec.nullable:
            _check_nulls(name, sources, documents, mistakes)
        if spec.required:
            _check_required(name, sources, documents, mistakes)
    for place, found in mistakes.items():
        reasons.setdefault(place, "; ".join(found))
    return measures


def _column(
    name: str, spec: FieldSpec, sources: list[Source], documents: Sequence[Document], mistakes: Mistakes
) -> Floats | None:
    column: Floats | None = None
    for source in sources:
        given = _numbers(name, source, spec, documents, mistakes)
        if column is None:
            column = given
        else:
            twice = ~np.isnan(column) & ~np.isnan(given)
            for place in twice.nonzero()[0].tolist():
                _note(mistakes, place, f"{name} is given twice, once as {source.name}")
            column = np.where(np.isnan(column), given, column)
    return column


def _numbers(name: str, source: Source, spec: FieldSpec, documents: Sequence[Document], mistakes: Mistakes) -> Floats:
    key = source.name
    values: list[Any] = [document.get(key) for document in documents]
    allowed = {*_TYPES[spec.type], type(None)}
    if not set(map(type, values)) <= allowed:
        for place, value in enumerate(values):
            if type(value) not in allowed:
                _note(mistakes, place, f"{name} is {_shown(value)}, not {_article(spec.type)}")
                values[place] = None
    column = np.array(values, dtype=np.float64)
    if source.linear != IDENTITY:
        with np.errstate(over="ignore"):
            column = column * source.linear.scale + source.linear.offset
        for place in np.isinf(column).nonzero()[0].tolist():
            _note(mistakes, place, f"{name} is too large a number")
    return column


def _check_range(name: str, spec: FieldSpec, column: Floats, mistakes: Mistakes) -> None:
    if spec.type == "integer":
        for place in ((column != np.floor(column)) & ~np.isnan(column)).nonzero()[0].tolist():
            _note(mistakes, place, f"{name} is {column[place]:g}, not an integer")
        for place in (np.abs(column) > LARGEST_EXACT).nonzero()[0].tolist():
            _note(mistakes, place, f"{name} is {column[place]:g}, too large to be kept exactly")
    if spec.min is not None and (below := column < spec.min).any():
        for place in below.nonzero()[0].tolist():
            _note(mistakes, place, f"{name} is {column[place]:.15g}, less than {spec.min:g} {spec.unit}")
    if spec.max is not None and (above := column > spec.max).any():
        for place in above.nonzero()[0].tolist():
            _note(mistakes, place, f"{name} is {column[place]:.15g}, greater than {spec.max:g} {spec.unit}")


def _check_texts(name: str, sources: list[Source], documents: Sequence[Document], mistakes: Mistakes) -> None:
    for source in sources:
        values = [document.get(source.name) for document in documents]
        if not set(map(type, values)) <= {str, type(None)}:
            for place, value in enumerate(values):
                if value is not None and type(value) is not str:
                    _note(mistakes, place, f"{name} is {_shown(value)}, not a text")
    if len(sources) > 1:
        for place, document in enumerate(documents):
            if sum(document.get(source.name) is not None for source in sources) > 1:
                _note(mistakes, place, f"{name} is given twice")


def _check_nulls(name: str, sources: list[Source], documents: Sequence[Document], mistakes: Mistakes) -> None:
    for source in sources:
        for place, document in enumerate(documents):
            if document.get(source.name, "") is None:
                _note(mistakes, place, f"{name} is null, which its device type does not allow")


def _check_required(name: str, sources: list[Source], documents: Sequence[Document], mistakes: Mistakes) -> None:
    for place, document in enumerate(documents):
        if all(document.get(source.name) is None for source in sources):
            _note(mistakes, place, f"{name} is missing")


def _note(mistakes: Mistakes, place: int, mistake: str) -> None:
    mistakes.setdefault(place, []).append(mistake)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    if isinstance(value, bool | int | float):
        return f"{kind(value)} ({str(value).lower()})"
    return kind(value)


def _article(type_name: str) -> str:
    return f"an {type_name}" if type_name == "integer" else f"a {type_name}"
