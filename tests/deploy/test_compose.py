"""The compose file, the image and their settings, checked without a container engine."""

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from headrace.cli.settings import Settings
from headrace.engine.config import load
from tests.conftest import Require
from tests.deploy.mosquitto import PATIENCE, run_script

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: Any = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
#: What deploy/secrets.sh makes.
MADE = {"ca.pem", "server.pem", "server.key", "passwords", "bridge-password", "database-password", "database-url"}
MADE |= {"data-password", "migration-url"}


def instructions() -> list[tuple[str, str]]:
    """Instruction and arguments of every line of the Containerfile, continuations joined."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Containerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line.strip())]


def test_compose_file_follows_the_specification() -> None:
    """By the schema that check-jsonschema carries. (Its own command wants a newer click than Faust allows.)"""
    found = distribution("check-jsonschema").locate_file("check_jsonschema/builtin_schemas/vendor/compose-spec.json")
    schema = json.loads(Path(str(found)).read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [error.message for error in validator.iter_errors(COMPOSE)] == []
    assert list(validator.iter_errors({"services": {"x": {"imagee": "y"}}})) != []


def test_docker_accepts_it(tmp_path: Path) -> None:
    """Where the compose plugin is there."""
    has = shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if not has or has.returncode:
        return
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    shutil.copy(DEPLOY / "example.env", tmp_path / "deploy" / ".env")
    command = ["docker", "compose", "-f", str(tmp_path / "deploy" / "compose.yaml"), "config", "-q"]
    subprocess.run(command, check=True, timeout=PATIENCE)


def test_what_services_refer_to_is_there() -> None:
    """Services waited for have a health check; volumes and secrets are declared; mounted files exist or are made."""
    secrets = {Path(each["file"]).name for each in COMPOSE["secrets"].values()}
    assert secrets <= MADE
    for service in SERVICES.values():
        assert all("healthcheck" in SERVICES[name] for name in service.get("depends_on", {}))
        assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys()
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if not source.startswith("."):
                assert source in COMPOSE["volumes"]
            elif source.startswith("./secrets/"):
                assert Path(source).name in MADE
            else:
                assert (DEPLOY / source).is_file()


def test_secrets_script_makes_what_is_mounted(require: Require, tmp_path: Path) -> None:
    """And does not change it when it runs again."""
    require(shutil.which("mosquitto_passwd"), "mosquitto_passwd", "install the package `mosquitto`")
    made = []
    for _ in range(2):
        run_script(tmp_path)
        made.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})

    assert made[0] == made[1]
    assert made[0].keys() >= MADE
    assert made[0]["database-url"].strip().endswith(b"@timescaledb/headrace")


def test_no_port_is_published_twice_and_every_image_is_pinned() -> None:
    """Images have a version, no address of a registry; every service is limited in memory."""
    ports = [port.rpartition(":")[0].rpartition(":")[2] for each in SERVICES.values() for port in each.get("ports", [])]
    assert len(ports) == len(set(ports))
    for service in SERVICES.values():
        assert re.fullmatch(r"[a-z-]+(/[a-z]+)?:[\w.-]+", service["image"])
        assert not service["image"].endswith(":latest")
        assert "mem_limit" in service


def test_no_password_is_in_what_git_has() -> None:
    """They come from files that git ignores."""
    for service in SERVICES.values():
        for name in service.get("environment", {}):
            assert not re.search(r"(PASSWORD|SECRET|TOKEN|KEY)$", name)
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/deploy/secrets/", "/deploy/.env"} <= set(ignored)


@pytest.mark.parametrize("name", ["worker", "sink", "bridge", "listener"])
def test_commands_of_the_containers_parse(name: str) -> None:
    """Each is a command of headrace and takes these options."""
    command = SERVICES[name]["command"]
    run = [sys.executable, "-m", "headrace.cli.main", command[0], "--help"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert all(option in done.stdout for option in command if option.startswith("--"))


def test_only_the_service_that_makes_tables_is_their_owner() -> None:
    """Its command parses; everybody else has the role that fills them."""
    command = SERVICES["migrate"]["command"]
    run = [sys.executable, "-m", "headrace.cli.main", *command[:2], "--help"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=PATIENCE, check=True)

    assert all(option in done.stdout for option in command if option.startswith("--"))
    assert [name for name, each in SERVICES.items() if "migration-url" in each.get("secrets", [])] == ["migrate"]
    assert SERVICES["migrate"]["environment"] == {"HEADRACE_DATABASE__MIGRATION_DSN": "file:/run/secrets/migration-url"}


def test_settings_of_the_containers_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """deploy/headrace.toml with the variables of example.env, secrets where compose.yaml mounts them."""
    text = (DEPLOY / "headrace.toml").read_text()
    for name in re.findall(r"file:/run/secrets/([a-z-]+)", text):
        assert all(name in SERVICES[service]["secrets"] for service in ("worker", "sink", "bridge"))
        (tmp_path / name).write_text("postgresql://headrace:secret@timescaledb/headrace\n")
    (tmp_path / "headrace.toml").write_text(text.replace("/run/secrets", str(tmp_path)))
    for line in (DEPLOY / "example.env").read_text().splitlines():
        if line.startswith("HEADRACE_"):
            monkeypatch.setenv(*line.split("=", 1))
    settings = load(Settings, tmp_path / "headrace.toml")
    health = next(rest for name, rest in instructions() if name == "HEALTHCHECK")

    assert settings.log.url == "kafka://kafka:9092"
    assert settings.mqtt.host in SERVICES
    assert settings.redis.url is not None
    assert urlsplit(settings.redis.url.get_secret_value()).hostname in SERVICES
    assert SERVICES["worker"]["build"]["args"] == {"EXTRAS": "redis"}
    assert f":{settings.monitor.port}/health" in health


def test_settings_of_the_listener_load(require: Require, tmp_path: Path) -> None:
    """deploy/listener.toml, with the certificates and passwords of secrets.sh, on the port that is published."""
    require(shutil.which("mosquitto_passwd"), "mosquitto_passwd", "install the package `mosquitto`")
    run_script(tmp_path)
    text = (DEPLOY / "listener.toml").read_text()
    for name in set(re.findall(r"/run/secrets/([a-z-]+)", text)):
        assert name in SERVICES["listener"]["secrets"]
        text = text.replace(f'"/run/secrets/{name}"', f'"{tmp_path / Path(COMPOSE["secrets"][name]["file"]).name}"')
    (tmp_path / "listener.toml").write_text(text)
    listener = load(Settings, tmp_path / "listener.toml").listener

    assert listener.access() is not None
    assert listener.tls() is not None
    assert SERVICES["listener"]["ports"][0].endswith(f":{listener.tls_port}")


def test_image_is_built_from_files_that_are_in_git() -> None:
    """Every COPY names files that git has and .dockerignore lets through; nothing runs as root at the end."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    shown = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    known = {"FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    found = instructions()
    assert {name for name, _ in found} <= known
    for name, rest in found:
        if name == "COPY" and not rest.startswith("--from=build "):
            for source in rest.split()[:-1]:
                assert any(file == source or file.startswith(f"{source}/") for file in tracked)
                assert source in shown
        if name == "FROM":
            assert re.match(r"python:3\.\d+-slim-[a-z]+( AS build)?$", rest)
    assert [rest for name, rest in found if name == "USER"] == ["headrace"]
    assert ("ENTRYPOINT", '["headrace"]') in found
