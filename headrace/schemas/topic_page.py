"""The page of the public topics, in Markdown. `python -m headrace.schemas.asyncapi` writes it anew."""

from collections.abc import Iterator

from headrace.schemas.public_topics import PUBLIC_TOPICS, PublicTopic
from headrace.schemas.topic_schemas import REFERENCE

PAGE = REFERENCE / "topics.md"

_HEAD = """\
# Public topics

Made from the models in `headrace/schemas/` by `python -m headrace.schemas.asyncapi`. The same for programs: one
[AsyncAPI 3.0 document](asyncapi.json) with examples, and a JSON Schema per topic. `headrace contracts TOPIC` prints
every field.

Fields may be added: ignore those that you do not know. Nothing is removed, and nothing changes its meaning, without a
line in the changelog; CI compares the schemas with the released ones, and the records of all topics with the schemas.
"""
_FOR_YOU = {"read": "to read", "write": "to write", "both": "to read and write"}


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_list(), *(line for topic in PUBLIC_TOPICS for line in _section(topic))])


def _list() -> Iterator[str]:
    yield "| topic | carries | for you |"
    yield "|---|---|---|"
    for topic in PUBLIC_TOPICS:
        compacted = ", compacted" if topic.compacted else ""
        yield f"| [`{topic.name}`](#{_anchor(topic)}) | {topic.carries} | {_FOR_YOU[topic.access]}{compacted} |"
    yield ""


def _section(topic: PublicTopic) -> Iterator[str]:
    yield f"## {topic.name}\n"
    yield f"{topic.carries}\n"
    yield f"- Key: {topic.key}."
    if topic.model is None:
        yield f"- Value: bytes as they came, `{topic.media}`."
    else:
        yield f"- Value: [{topic.title}](topics/{topic.name}.schema.json), `{topic.media}`."
    yield f"- {topic.promise}\n"
    if topic.headers:
        yield "| header | always | holds |"
        yield "|---|---|---|"
        for name, header in topic.headers.items():
            yield f"| `{name}` | {'yes' if header.always else ''} | {header.description} |"
        yield ""


def _anchor(topic: PublicTopic) -> str:
    return topic.name.replace(".", "")
