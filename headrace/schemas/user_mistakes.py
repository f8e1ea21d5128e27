"""What is wrong with a user, for people."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from headrace.schemas.text import near, what_is_wrong
from headrace.schemas.user import User

#: What fields must be, where a pattern or a bound does not tell.
_MUST = {
    "email": "is no email address",
    "phone": "must be a plus, country and number, as in +491701234567",
    "start": "must be HH:MM, as in 22:00",
    "end": "must be HH:MM, as in 08:00",
    "language": "must be a language of BCP 47, as in en or de-AT",
    "hours": "must be a minute (0.02) to 366 days (8784)",
}
#: What pydantic says in words of Python.
_KINDS = {
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "float_parsing": "must be a number",
    "int_parsing": "must be a whole number",
}
#: Mistakes for which it says so.
_BOUNDS = ("string_pattern_mismatch", "greater_than_equal", "less_than_equal")


def check_user(document: object) -> tuple[User | None, list[str]]:
    """The user of a document, if it is one, and every mistake: where, and what; without the values."""
    try:
        return User.model_validate(document), []
    except ValidationError as error:
        return None, [_said(each) for each in error.errors(include_url=False, include_input=False)]


def _said(mistake: ErrorDetails) -> str:
    place = [str(part) for part in mistake["loc"]]
    said = what_is_wrong(mistake)
    if mistake["type"] == "extra_forbidden":
        said += near(place[-1], _fields(mistake["loc"][:-1]))
    elif mistake["type"] in _BOUNDS and place[-1] in _MUST:
        said = _MUST[place[-1]]
    elif mistake["type"] in _KINDS:
        said = _KINDS[mistake["type"]]
        if said in ("must be a list", "must be an object"):
            said += ", in a cell or on the command line as JSON"
    elif mistake["type"] == "literal_error":
        said = f"must be {mistake['ctx']['expected']}"
    elif mistake["type"] == "too_long":
        said = f"must have at most {mistake['ctx']['max_length']:,}"
    return ": ".join(filter(None, [".".join(place), said]))


def _fields(place: tuple[int | str, ...]) -> list[str]:
    """Names that the object at a place may have."""
    model: type[BaseModel] = User
    for part in place:
        found = next((field for name, field in model.model_fields.items() if part in (name, field.alias)), None)
        inner = next(_models(found.annotation), None) if found else None
        model = inner or model
    return [field.alias or name for name, field in model.model_fields.items()]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _models(each)
