"""Files of what a registry holds: CSV with a header, TOML, NDJSON or a JSON array, plain or gzipped."""

import csv
import gzip
import json
import re
import tomllib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from headrace.engine.errors import ConfigError
from headrace.schemas.text import near

#: Ends of names of what people try, and what none of these is.
_OTHERS = re.compile(r"\.(ya?ml|xlsx?|ods|xml|vcf|parquet|zip|ics|ldif)$", re.IGNORECASE)


class Kind(NamedTuple):
    """What files are read of.

    Args:
        name: of one of them, as `device`; with TOML, files have a table `[[device]]` for each.
        fields: names that a document of it may have at its top.
        spellings: other names, for hints.
        path_of: where a field of this name is in a document; nowhere, if it is left out.
        document_of: fields as a file has them, under the names of the document.
        example: of a header.
    """

    name: str
    fields: Collection[str]
    spellings: Collection[str]
    path_of: Callable[[str], tuple[str, ...]]
    document_of: Callable[[dict[str, Any]], dict[str, Any]]
    example: str


class Row(NamedTuple):
    """One of them.

    Args:
        line: on which it begins, from 1.
        document: with the names of its model; None where there is none.
        mistake: why there is none.
    """

    line: int
    document: dict[str, Any] | None
    mistake: str = ""


def file_rows(path: Path, kind: Kind) -> Iterator[Row]:
    """What a file holds, in order; what cannot be read is a row of its own.

    Raises:
        ConfigError: the file cannot be read, has another form, or its header names something that there is not.
    """
    if _OTHERS.search(path.name):
        raise ConfigError(f"{path}: not a form that is read; save it as CSV (.csv), TOML (.toml) or JSON")
    try:
        with _opened(path) as text:
            if re.search(r"\.[ct]sv(\.gz)?$", path.name, re.IGNORECASE):
                yield from _csv_rows(path, text, kind)
            elif re.search(r"\.toml(\.gz)?$", path.name, re.IGNORECASE):
                yield from _toml_rows(path, text.read(), kind)
            else:
                yield from _json_rows(text, kind)
    except (OSError, EOFError) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from error


def _opened(path: Path) -> TextIO:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _csv_rows(path: Path, text: TextIO, kind: Kind) -> Iterator[Row]:
    first = text.readline()
    separator = max(",;\t", key=first.count)
    header = next(csv.reader([first], delimiter=separator), [])
    if not any(header):
        raise ConfigError(f"{path}: no header: the first line names the columns, such as {kind.example}")
    paths = [kind.path_of(name) for name in header]
    twice = sorted({name for name, place in zip(header, paths, strict=True) if place and paths.count(place) > 1})
    if twice:
        raise ConfigError(f"{path}: line 1: {', '.join(map(repr, twice))} say the same; leave one")
    wrong = [name for name, place in zip(header, paths, strict=True) if place and place[0] not in kind.fields]
    if wrong:
        known = [*kind.fields, *kind.spellings]
        raise ConfigError(*(f"{path}: line 1: no {kind.name} has {name!r}{near(name, known)}" for name in wrong))
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
            yield Row(line, kind.document_of(dict(zip(header, map(str.strip, cells), strict=True))))


def _json_rows(text: TextIO, kind: Kind) -> Iterator[Row]:
    whole = text.read()
    if whole.lstrip()[:1] == "[":
        yield from _array_rows(whole, kind)
        return
    if (mistake := _one_object(whole, kind)) is not None:
        yield Row(1, None, mistake)
        return
    for line, part in enumerate(whole.split("\n"), 1):
        if part.strip():
            try:
                yield _row(line, json.loads(part), kind)
            except (ValueError, RecursionError) as error:
                yield Row(line, None, f"not JSON: {getattr(error, 'msg', error)}")


def _one_object(whole: str, kind: Kind) -> str | None:
    """What is wrong with a file that is one JSON object over many lines, or one with a list in it."""
    first, _, rest = whole.lstrip().partition("\n")
    if first[:1] != "{":
        return None
    try:
        document = json.loads(whole if rest.strip() else first)
    except (ValueError, RecursionError):
        return None
    inner = next((name for name in (f"{kind.name}s", kind.name) if isinstance(document.get(name), list)), None)
    if inner is not None:
        return f"a JSON object with {inner!r}; leave only what is in it: [{{…}}, {{…}}]"
    return (
        f"one JSON object over many lines; write a list, [{{…}}], or one {kind.name} a line" if rest.strip() else None
    )


def _array_rows(whole: str, kind: Kind) -> Iterator[Row]:
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
        yield _row(line, value, kind)
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


def _row(line: int, value: object, kind: Kind) -> Row:
    return Row(line, kind.document_of(value)) if isinstance(value, dict) else Row(line, None, "not a JSON object")


def _toml_rows(path: Path, text: str, kind: Kind) -> Iterator[Row]:
    """Their lines are those of the tables' heads; TOML's reader tells none."""
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML ({error})") from error
    heads = re.compile(rf"^[ \t]*\[\[[ \t]*{kind.name}[ \t]*\]\]", re.MULTILINE)
    lines = [text.count("\n", 0, found.start()) + 1 for found in heads.finditer(text)]
    tables = data.get(kind.name)
    for name in data.keys() - {kind.name}:
        yield Row(1, None, f"{name}: unknown; write a table [[{kind.name}]] for each{near(name, [kind.name])}")
    if not isinstance(tables, list):
        yield Row(1, None, f"write a table [[{kind.name}]] for each")
        return
    for number, table in enumerate(tables):
        yield _row(lines[number] if len(lines) == len(tables) else 1, table, kind)
