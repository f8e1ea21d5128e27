"""Files of devices: CSV with a header, NDJSON or a JSON array, plain or gzipped, as documents of `Device`."""

import csv
import gzip
import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from headrace.engine.errors import ConfigError
from headrace.schemas.device import Device
from headrace.schemas.text import near

#: Other names that a field comes under, in lower case and without `_`, `-` and spaces.
_NAMES: dict[str, tuple[str, ...]] = {
    "id": ("deviceId",),
    "type": ("deviceType",),
    "organisation": ("organizationId",),
    "organization": ("organizationId",),
    "organisationid": ("organizationId",),
    "gatewayid": ("gateway",),
    "firmware": ("firmwareVersion",),
    "lat": ("location", "lat"),
    "latitude": ("location", "lat"),
    "lon": ("location", "lon"),
    "lng": ("location", "lon"),
    "longitude": ("location", "lon"),
    "address": ("location", "address"),
    **{(field.alias or name).lower(): (field.alias or name,) for name, field in Device.model_fields.items()},
}
#: What other systems' exports have and nobody registers, because it is seen: left out.
SEEN = frozenset({"lastseen", "lastreading", "createdat", "updatedat"})
#: Presence, not a status: such a device is in use.
PRESENCE = frozenset({"online", "offline"})


class Row(NamedTuple):
    """One device of a file.

    Args:
        line: on which it begins, from 1.
        document: with the names of `Device`; None where there is none.
        mistake: why there is none.
    """

    line: int
    document: dict[str, Any] | None
    mistake: str = ""


def device_rows(path: Path) -> Iterator[Row]:
    """The devices of a file, in order; what cannot be read is a row of its own.

    Raises:
        ConfigError: the file cannot be read, or its header names something that no device has.
    """
    try:
        with _opened(path) as text:
            if re.search(r"\.csv(\.gz)?$", path.name, re.IGNORECASE):
                yield from _csv_rows(path, text)
            else:
                yield from _json_rows(text)
    except (OSError, EOFError) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from error


def document_of(fields: dict[str, Any]) -> dict[str, Any]:
    """`fields` under the names of `Device`: other spellings understood, `location.lat` nested, empty ones left out.

    >>> document_of({"id": "d1", "Organisation": "acme", "lat": "48.1", "tags": "roof; east", "gateway": ""})
    {'deviceId': 'd1', 'organizationId': 'acme', 'location': {'lat': '48.1'}, 'tags': ['roof', 'east']}
    """
    document: dict[str, Any] = {}
    for name, value in fields.items():
        path = path_of(name)
        if not path or value is None or value == "":
            continue
        place = document
        for part in path[:-1]:
            inner = place.setdefault(part, {})
            place = inner if isinstance(inner, dict) else place
        place[path[-1]] = _READ[path[0]](value) if path[0] in _READ and isinstance(value, str) else value
    return document


def _tags(text: str) -> list[str]:
    return [tag.strip() for tag in re.split("[;,|]", text) if tag.strip()]


def _status(text: str) -> str:
    return "active" if text.lower() in PRESENCE else text.lower()


#: How texts are read that mean more than themselves.
_READ: dict[str, Callable[[str], object]] = {"tags": _tags, "status": _status}


@lru_cache(maxsize=4096)
def path_of(name: str) -> tuple[str, ...]:
    """Where a field of this name is in a document; nowhere, if it is one of `SEEN`. An unknown one keeps its name."""
    first, *rest = name.strip().split(".")
    plain = re.sub(r"[_\- ]", "", first).lower()
    if plain in SEEN:
        return ()
    return (*_NAMES.get(plain, (first,)), *rest)


def _opened(path: Path) -> TextIO:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _csv_rows(path: Path, text: TextIO) -> Iterator[Row]:
    first = text.readline()
    separator = max(",;\t", key=first.count)
    header = next(csv.reader([first], delimiter=separator), [])
    if not any(header):
        raise ConfigError(f"{path}: no header: the first line names the columns, such as id,name,type")
    known = {field.alias or name for name, field in Device.model_fields.items()}
    twice = sorted({name for name in header if path_of(name) and list(map(path_of, header)).count(path_of(name)) > 1})
    if twice:
        raise ConfigError(f"{path}: line 1: {', '.join(map(repr, twice))} say the same; leave one")
    wrong = [name for name in header if path_of(name) and path_of(name)[0] not in known]
    if wrong:
        raise ConfigError(*(f"{path}: line 1: no device has {name!r}{near(name, [*known, *_NAMES])}" for name in wrong))
    rows = csv.reader(text, delimiter=separator, strict=True)
    while True:
        line = rows.line_num + 2
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(line, None, f"not CSV: {error}")
            continue
        if not cells:
            continue
        if len(cells) != len(header):
            yield Row(line, None, f"{len(cells)} fields, but the header has {len(header)}")
        else:
            yield Row(line, document_of(dict(zip(header, map(str.strip, cells), strict=True))))


def _json_rows(text: TextIO) -> Iterator[Row]:
    whole = text.read()
    if whole.lstrip()[:1] == "[":
        yield from _array_rows(whole)
        return
    for line, part in enumerate(whole.split("\n"), 1):
        if part.strip():
            try:
                yield _row(line, json.loads(part))
            except (ValueError, RecursionError) as error:
                yield Row(line, None, f"not JSON: {getattr(error, 'msg', error)}")


def _array_rows(whole: str) -> Iterator[Row]:
    """Item by item, so that each has its line."""
    decode = json.JSONDecoder().raw_decode
    at, line, counted = whole.index("[") + 1, 1, 0
    ends_here = True
    while True:
        at = _behind_space(whole, at)
        line, counted = line + whole.count("\n", counted, at), at
        if ends_here and whole[at : at + 1] == "]":
            if whole[at + 1 :].strip():
                yield Row(line, None, "not JSON: something follows the end of the list")
            return
        try:
            value, at = decode(whole, at)
        except (ValueError, RecursionError) as error:
            yield Row(line, None, f"not JSON: {getattr(error, 'msg', error)}; nothing after it can be read")
            return
        yield _row(line, value)
        at = _behind_space(whole, at)
        ends_here = whole[at : at + 1] == "]"
        if whole[at : at + 1] == ",":
            at += 1
        elif not ends_here:
            yield Row(line, None, "not JSON: no comma after it; nothing after it can be read")
            return


def _behind_space(text: str, at: int) -> int:
    while text[at : at + 1].isspace():
        at += 1
    return at


def _row(line: int, value: object) -> Row:
    return Row(line, document_of(value)) if isinstance(value, dict) else Row(line, None, "not a JSON object")
