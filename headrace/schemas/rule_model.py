"""What the models of a rule's document share: two spellings of every name, and numbers that are no switches."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel


class RuleModel(BaseModel):
    """JSON has the camelCase names of the public schema, TOML and Python the others; both are read, one at a time."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, alias_generator=to_camel, populate_by_name=True
    )

    @model_validator(mode="before")
    @classmethod
    def _spelt_once(cls, document: Any) -> Any:
        given = document if isinstance(document, Mapping) else {}
        twice = [name for name in cls.model_fields if to_camel(name) != name and {name, to_camel(name)} <= given.keys()]
        if twice:
            name, *more = twice
            others = "".join(f"; so is {each}" for each in more)
            raise ValueError(f"{name}: is given twice, as {to_camel(name)} too: keep one of them{others}")
        return document


def _no_switch(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {str(value).lower()}")
    return value


#: `true` is not 1.
NoSwitch = BeforeValidator(_no_switch)
Number = Annotated[float, NoSwitch]
#: Seconds; a year at the most, so that no arithmetic with milliseconds overflows.
Seconds = Annotated[float, Field(ge=0, le=366 * 86_400), NoSwitch]
SomeSeconds = Annotated[float, Field(gt=0, le=366 * 86_400), NoSwitch]
LongSeconds = Annotated[float, Field(ge=1, le=366 * 86_400), NoSwitch]
