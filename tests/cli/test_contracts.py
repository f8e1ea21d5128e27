"""`headrace contracts`: what is printed for people and for programs."""

from pathlib import Path

import orjson
import pytest

from headrace.schemas.public_topics import PUBLIC_TOPICS, PublicTopic
from headrace.schemas.topic_schemas import FOLDER, REFERENCE
from tests.cli.conftest import Headrace


def test_the_whole_document_and_one_schema_are_those_published(headrace: Headrace) -> None:
    """`--json` prints what is in docs/reference, byte for byte."""
    assert headrace("contracts", "--json").stdout == (REFERENCE / "asyncapi.json").read_bytes()
    assert headrace("contracts", "alerts.v1", "--json").stdout == (FOLDER / "alerts.v1.schema.json").read_bytes()


def test_every_topic_is_listed(headrace: Headrace) -> None:
    """With what it carries, in a line."""
    lines = headrace("contracts").stdout.decode().splitlines()[1:]

    assert [line.split()[0] for line in lines] == [topic.name for topic in PUBLIC_TOPICS]
    assert all(topic.carries in line for topic, line in zip(PUBLIC_TOPICS, lines, strict=True))


@pytest.mark.parametrize("topic", PUBLIC_TOPICS, ids=lambda topic: topic.name)
def test_a_page_says_all_about_a_topic(headrace: Headrace, topic: PublicTopic) -> None:
    """Promise, headers, every field of the value, an example."""
    page = headrace("contracts", topic.name).stdout.decode()

    assert topic.promise in page
    for name, header in topic.headers.items():
        assert f"\n{name} " in page
        assert header.description in page
    if topic.model is not None:
        schema = orjson.loads((FOLDER / f"{topic.name}.schema.json").read_bytes())
        for part in (schema, *schema.get("$defs", {}).values()):
            for name, field in part.get("properties", {}).items():
                assert f"\n{name} " in page
                assert field["description"] in page


def test_what_a_change_breaks_is_said(headrace: Headrace, tmp_path: Path) -> None:
    """A field that readers of an older schema go by, and that is not there any more; exit code 1."""
    old = orjson.loads((FOLDER / "alerts.v1.schema.json").read_bytes())
    old["properties"]["dataschema"] = {"type": "string"}
    (tmp_path / "old.json").write_bytes(orjson.dumps(old))
    arguments = ("contracts", "compare", "alerts.v1", tmp_path / "old.json")

    told = headrace(*arguments, "--json", code=1)

    assert orjson.loads(told.stdout) == {"topic": "alerts.v1", "compatible": False, "breaks": ["dataschema: is gone"]}
    assert headrace(*arguments, code=1).stdout == b"dataschema: is gone\n"
    assert headrace("contracts", "compare", "rules", FOLDER / "rules.schema.json").stdout == b"compatible\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("alert.v1",), "did you mean 'alerts.v1'?"),
        (("nothing",), "there are telemetry.raw, "),
        (("telemetry.raw", "--json"), "there is no schema"),
        (("compare", "alerts.v1", __file__), "no JSON Schema"),
    ],
)
def test_mistakes_are_said(headrace: Headrace, arguments: tuple[str, ...], said: str) -> None:
    """With what to do."""
    assert said in headrace("contracts", *arguments, code=2).stderr
