"""Faust's own documented examples, taken from the description of the installed package."""

import importlib.metadata
import re
from typing import Any

import faust

from headrace.engine.app import App
from headrace.engine.log import Log
from tests.engine.runtime.running import FAST

#: How an example makes its application. That line is what changes: a log takes the place of a broker.
CONSTRUCTION = re.compile(r"faust\.App\('(?P<group>[^']*)', broker='kafka://localhost'\)")


def example(containing: str) -> str:
    """The text of the one example in Faust's README that contains this."""
    metadata: Any = importlib.metadata.metadata("faust-streaming")
    description: str = metadata.get_payload()
    (found,) = [text for text in re.findall(r"```python\n(.*?)```", description, re.DOTALL) if containing in text]
    return str(found)


def run(text: str, log: Log, app: App | None = None, **settings: Any) -> dict[str, Any]:
    """Run the text of an example as a module; what it defines.

    Args:
        app: where the text leaves out how its application is made.
        settings: for the application that the text makes.
    """
    changed, count = CONSTRUCTION.subn(r"new_app('\g<group>')", text)
    assert count == (0 if app is not None else 1)
    names: dict[str, Any] = {
        "__name__": "example",
        "faust": faust,
        "app": app,
        "new_app": lambda group: App(group, log, runtime=FAST, **settings),
    }
    exec(compile(changed, "example.py", "exec"), names)
    return names
