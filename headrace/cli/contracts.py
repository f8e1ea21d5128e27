"""`headrace contracts`: what the public topics carry, for those who read or write them."""

import sys
from pathlib import Path

import click
import orjson
from rich.table import Table
from rich.text import Text

from headrace.cli.listing import listing, show_listing
from headrace.cli.show_group import ShowGroup
from headrace.engine.errors import ConfigError
from headrace.schemas.asyncapi import asyncapi
from headrace.schemas.public_topics import BY_NAME, PUBLIC_TOPICS, PublicTopic
from headrace.schemas.schema_compare import breaks
from headrace.schemas.text import near
from headrace.schemas.topic_schemas import examples, value_schema, written
from headrace.schemas.value_schema import Schema

_FOR_YOU = {"read": "to read", "write": "to write", "both": "to read and write"}


@click.group(cls=ShowGroup)
def contracts() -> None:
    """What public topics carry: keys, headers, schemas, promises.

    headrace contracts [TOPIC] is short for headrace contracts show [TOPIC].
    """


@contracts.command()
@click.argument("topic", required=False)
@click.option("--json", "as_json", is_flag=True, help="The JSON Schema of TOPIC, or the AsyncAPI document about all.")
def show(topic: str | None, as_json: bool) -> None:
    """List the public topics, or say all about TOPIC.

    With --json the JSON Schema of its values, or the AsyncAPI 3.0 document about all topics.
    """
    found = None if topic is None else _named(topic)
    if as_json:
        click.echo(written(asyncapi() if found is None else _schema(found)).decode(), nl=False)
    elif found is None:
        table = listing("topic", "carries", "key", "for you", "compacted")
        for each in PUBLIC_TOPICS:
            _row(table, each.name, each.carries, each.key, _FOR_YOU[each.access], "yes" if each.compacted else "")
        show_listing(table)
    else:
        _show(found)


@contracts.command()
@click.argument("topic")
@click.argument("old", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def compare(topic: str, old: Path, as_json: bool) -> None:
    """Say what no longer holds for who relies on OLD, an earlier schema of TOPIC.

    Exits with 1 if anything does not.
    """
    found = _named(topic)
    try:
        relied: Schema = orjson.loads(old.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{old}: no JSON Schema: {error}") from error
    told = breaks(relied, _schema(found), found.access)
    if as_json:
        click.echo(orjson.dumps({"topic": found.name, "compatible": not told, "breaks": told}).decode())
    else:
        click.echo("\n".join(told) or "compatible")
    if told:
        sys.exit(1)


def _named(name: str) -> PublicTopic:
    if name not in BY_NAME:
        hint = near(name, BY_NAME) or f"; there are {', '.join(BY_NAME)}"
        raise ConfigError(f"there is no public topic {name}{hint}")
    return BY_NAME[name]


def _schema(topic: PublicTopic) -> Schema:
    schema = value_schema(topic)
    if schema is None:
        raise ConfigError(f"{topic.name} carries bytes that only sender and receiver know: there is no schema")
    return schema


def _show(topic: PublicTopic) -> None:
    click.echo(f"{topic.name}: {topic.carries}\n")
    about = listing("", "", header=False)
    _row(about, "key", topic.key)
    _row(about, "value", f"{topic.title}, {topic.media}" if topic.model else f"bytes, {topic.media}")
    _row(about, "for you", _FOR_YOU[topic.access])
    _row(about, "compacted", "yes" if topic.compacted else "no")
    _row(about, "promise", topic.promise)
    show_listing(about)
    if topic.headers:
        table = listing("header", "always", "holds")
        for name, header in topic.headers.items():
            _row(table, name, "yes" if header.always else "", header.description)
        click.echo()
        show_listing(table)
    schema = value_schema(topic)
    if schema is not None:
        parts = [schema, *schema.get("$defs", {}).values()]
        for part in parts:
            if "properties" in part:
                click.echo(f"\n{part['title']}: {part['description']}\n")
                _show_fields(part)
    click.echo("\nexample")
    click.echo(orjson.dumps(examples(topic)[0], option=orjson.OPT_INDENT_2).decode())


def _show_fields(part: Schema) -> None:
    table = listing("field", "type", "always", "meaning")
    required = part.get("required", ())
    for name, field in part["properties"].items():
        _row(table, name, _type(field), "yes" if name in required else "", field.get("description", ""))
    show_listing(table)


def _row(table: Table, *cells: str) -> None:
    """Add a row as it is: brackets are no markup."""
    table.add_row(*map(Text, cells))


def _type(field: Schema) -> str:
    """A field's type in a few words."""
    values = field.get("enum", [field["const"]] if "const" in field else [])
    if values:
        return " | ".join(orjson.dumps(each).decode() for each in values)
    if alternatives := field.get("anyOf") or field.get("oneOf"):
        return " | ".join(map(_type, alternatives))
    if field.get("type") == "array":
        return f"array of {_type(field.get('items', {}))}"
    if isinstance(named := field.get("additionalProperties"), dict):
        return f"object of {_type(named)}"
    return str(field.get("$ref", field.get("type", "any"))).rpartition("/")[2]
