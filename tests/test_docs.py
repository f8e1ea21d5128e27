"""The pages in docs say what the code does."""

import asyncio
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from headrace.cli.settings import Settings
from headrace.connectors.topic_profile import SHIPPED, TopicProfile, TopicProfiles
from headrace.engine import dead_letters
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import Append, TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Records
from headrace.engine.sink_runner import SinkRunner
from headrace.schemas import topics
from headrace.tables.rules import load_rules

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "configuration.md").read_text()
#: Every TOML block of the page: all defaults, then a rule.
DEFAULTS, RULE = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Key and default of every setting, sections followed."""
    for name, field in model.model_fields.items():
        default = field.get_default()
        if isinstance(default, BaseModel):
            yield from settings(type(default), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", default


def samples(guide: str) -> list[str]:
    """The Python blocks of a guide."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "guides" / guide).read_text(), re.DOTALL)


def module(name: str, source: str) -> Any:
    """A block as an imported module."""
    made = ModuleType(name)
    exec(compile(source, name, "exec"), made.__dict__)
    return made


def shown(default: object) -> str:
    """A default as the page writes it."""
    if default is None:
        return "none"
    if isinstance(default, tuple) and default and isinstance(default[0], TopicProfile):
        return f"`{[profile.name for profile in default]}`"
    if isinstance(default, dict):
        default = {key: list(value) if isinstance(value, tuple) else value for key, value in default.items()}
    return f"`{list(default) if isinstance(default, tuple) else default}`"


@pytest.mark.parametrize(("key", "default"), list(settings(Settings)), ids=str)
def test_every_setting_is_on_the_page(key: str, default: object) -> None:
    """With its environment variable and its default, and in the example file."""
    variable = f"HEADRACE_{key.upper().replace('.', '__')}"
    assert f"| `{key}` | `{variable}` | {shown(default)} |" in PAGE
    name = key.rpartition(".")[2]
    assert re.search(rf"^(# )?{name} = |^\[\[{name}\]\]$", DEFAULTS, re.MULTILINE)


def test_page_has_no_setting_that_is_gone() -> None:
    """Every row of its tables is a setting."""
    assert set(re.findall(r"^\| `([a-z_.]+)` \| `HEADRACE_", PAGE, re.MULTILINE)) == dict(settings(Settings)).keys()


def test_example_file_holds_the_defaults() -> None:
    """The file on the page changes nothing."""
    assert Settings(**tomllib.loads(DEFAULTS)) == Settings()


def test_example_rule_is_one(tmp_path: Path) -> None:
    """The rule on the page can be loaded."""
    (tmp_path / "rules.toml").write_text(RULE)
    assert [rule.rule_id for rule in load_rules(tmp_path / "rules.toml")] == ["freezing"]


def test_profiles_of_the_guide_are_right() -> None:
    """Those it calls shipped are, and its example goes together."""
    page = (ROOT / "docs" / "guides" / "topic-profiles.md").read_text()
    shipped, alarms = [tomllib.loads(block)["profiles"] for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL)]

    assert TypeAdapter(TopicProfiles).validate_python(shipped) == SHIPPED
    assert len(TypeAdapter(TopicProfiles).validate_python(alarms)) == 2


def test_settings_of_the_guide_to_channels_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every one of its examples loads, with secrets where it says that they are."""
    page = (ROOT / "docs" / "guides" / "notification-channels.md").read_text()
    for name in ("SMTP_PASSWORD", "NTFY_TOKEN", "ALERTMANAGER_TOKEN"):
        monkeypatch.setenv(name, "secret")
    for name in ("WEBHOOK_SECRET", "TICKETS_SECRET"):
        monkeypatch.setenv(name, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqr")
    monkeypatch.setenv("SLACK_URL", "slack://TokenA/TokenB/TokenC/#alerts")
    (tmp_path / "pagerduty").write_text("0123456789abcdef0123456789abcdef")
    (tmp_path / "firebase.json").write_text('{"project_id": "a", "client_email": "b", "private_key": "c"}')

    blocks = re.findall(r"```toml\n(.*?)```", page.replace("/run/secrets", str(tmp_path)), re.DOTALL)

    assert len(blocks) == 8
    for block in blocks:
        assert Settings(**tomllib.loads(block)).channels != Settings().channels


@pytest.mark.parametrize("guide", ["mqtt.md", "kinesis.md", "kinesis-source.md", "users.md"])
def test_settings_of_a_guide_are_right(guide: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every one of its examples loads, as it stands there."""
    monkeypatch.setenv("MQTT_PASSWORD", "secret")
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "guides" / guide).read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        assert Settings(**tomllib.loads(block)) != Settings()


def test_every_header_of_a_dead_letter_is_explained() -> None:
    """docs/guides/bad-input.md names the headers of `telemetry.dlq`."""
    page = (ROOT / "docs" / "guides" / "bad-input.md").read_text()
    headers = {value for value in vars(dead_letters).values() if isinstance(value, str) and value.startswith("dlq-")}
    assert headers
    assert {header for header in headers if f"`{header}`" not in page} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link, and every file of ours that is named in code marks, exists."""
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    files = re.findall(r"`((?:headrace|tests|docs|benchmarks|scripts)/[\w./-]+\.\w+)`", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [file for file in files if not (ROOT / file).exists()]
    assert missing == []


@pytest.mark.parametrize("guide", ["add-an-agent.md", "tables.md"])
def test_program_of_a_guide_prints_what_it_says(guide: str) -> None:
    """The whole first program, as somebody would try it."""
    program = samples(guide)[0]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert f"prints `{done.stdout.strip()}`" in (ROOT / "docs" / "guides" / guide).read_text()


def test_program_of_the_guide_to_replicated_tables_prints_what_it_says() -> None:
    """The whole program, as somebody would try it."""
    program, _ = samples("replicated-tables.md")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert f"prints `{done.stdout.strip()}`" in (ROOT / "docs" / "guides" / "replicated-tables.md").read_text()


async def test_sink_of_the_connector_guide_stores_everything_once(tmp_path: Path) -> None:
    """Two runs one after the other store each record once."""
    sink_module = module("sqlite_sink", samples("add-a-connector.md")[1])
    log = EmbeddedLog(MEMORY)
    await log.create_topics([TopicSpec(topics.ALERTS, 1), TopicSpec(topics.DEAD_LETTERS, 1), *SinkRunner.topic_specs()])
    target = TopicPartition(topics.ALERTS, 0)
    for end in (2, 4):
        await log.commit(Transaction([Append(target, Records([b"d"] * 2, [b"{}"] * 2, [0] * 2))]))
        stop, sink = asyncio.Event(), sink_module.SqliteSink(tmp_path / "alerts.db")
        running = asyncio.create_task(SinkRunner(log, sink, SystemClock()).run(stop))
        async with asyncio.timeout(300):
            while (await log.positions("sqlite", topics.ALERTS))[target] < end:
                await asyncio.sleep(0.005)
        stop.set()
        await running
    await sink.open()
    assert await sink.positions([target]) == {target: 4}
    assert sink._database.execute("SELECT offset FROM alerts").fetchall() == [(0,), (1,), (2,), (3,)]
    await sink.close()
    await log.close()
