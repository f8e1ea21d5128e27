"""Reading configuration: one TOML file, `HEADRACE_*` environment variables over it, every mistake in one message."""

import os
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from headrace.engine.errors import ConfigError
from headrace.schemas.text import near

PREFIX = "HEADRACE_"
#: Variables of the test suite; they configure no headrace.
TEST_PREFIX = "HEADRACE_TEST_"


class LayeredSettings(BaseSettings):
    """Settings whose environment variables win over what the file says, key by key."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        nested_model_default_partial_update=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings


Model = TypeVar("Model", bound=LayeredSettings)


def load(model: type[Model], path: Path | None, defaults: dict[str, Any] | None = None) -> Model:
    """Settings from a TOML file and the environment.

    Args:
        model: what to read.
        path: the file, or None for the environment alone.
        defaults: what a command starts from; the file and the environment override it, key by key.
    Raises:
        ConfigError: every mistake found.
    """
    values = dict(defaults or {})
    if path is not None:
        try:
            found = tomllib.loads(path.read_text())
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not TOML ({error})") from error
        values = _merged(values, found)
    found_mistakes = _unknown_variables(model)
    settings = None
    try:
        settings = model(**values)
    except SettingsError as error:
        found_mistakes.append(f"environment: {error}: {error.__cause__}")
    except ValidationError as error:
        found_mistakes = mistakes(error, str(path) if path else "configuration", model) + found_mistakes
    if settings is None or found_mistakes:
        raise ConfigError(*found_mistakes)
    return settings


def mistakes(error: ValidationError, source: str, model: type[BaseModel] | None = None) -> list[str]:
    """One line per mistake that pydantic found, without the value: it may be a secret.

    Args:
        model: what was read; then settings that there are not come with one of a similar name.
    """
    found = []
    for each in error.errors(include_input=False, include_url=False, include_context=False):
        place, said = each["loc"], each["msg"].removeprefix("Value error, ")
        if model is not None and each["type"] == "extra_forbidden":
            said = f"is not a setting{near(str(place[-1]), _names_at(model, place[:-1]))}"
        found.append(f"{source}: {'.'.join(map(str, place)) or 'top level'}: {said}")
    return found


def _names_at(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """Settings of the section at `place`; none where that is no model of its own."""
    for name in place:
        field = model.model_fields.get(str(name))
        kind = field.annotation if field is not None else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return []
        model = kind
    return list(model.model_fields)


def resolve_secret(reference: str) -> str:
    """Follow `env:NAME` or `file:PATH`; anything else is the secret itself.

    Raises:
        ValueError: the variable or file is not there.
    """
    kind, _, name = reference.partition(":")
    if kind == "env":
        if name not in os.environ:
            raise ValueError(f"environment variable {name} is not set")
        return os.environ[name]
    if kind == "file":
        try:
            return Path(name).read_text().strip()
        except OSError as error:
            raise ValueError(f"file {name} cannot be read ({error.strerror})") from error
    return reference


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _unknown_variables(model: type[LayeredSettings]) -> list[str]:
    known = {f"{PREFIX}{name}".upper() for name in model.model_fields}
    return [
        f"environment: {name} is not a setting"
        for name in sorted(os.environ)
        if name.startswith(PREFIX) and name.split("__")[0] not in known and not name.startswith(TEST_PREFIX)
    ]
