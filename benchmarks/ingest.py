"""One core of ingest alone, on the environmental sensor's four-measure JSON.

Prints {"value": messages per second of CPU time}: nothing here waits, and others may share the machine.

Variants: `stages` goes from raw bytes to normalised columns with derived metrics, `whole` on to encoded readings, with
repeats recognised; `orjson` is bare `orjson.loads` of the same bytes, `pydantic` is `model_validate_json` of a model of
the same fields and ranges. `--unknown` and `--bad` give a share of the messages a field that the device type does not
know, or break them.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import orjson
from load import messages
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from headrace.agents.derive import derive
from headrace.agents.ingest import Ingest
from headrace.engine.batch import Batch, Shared
from headrace.engine.log import Fetched
from headrace.engine.records import Records
from headrace.engine.testkit import fetched
from headrace.schemas import topics
from headrace.schemas.device_type import DeviceType
from headrace.tables.device_types import load_device_types

TYPE = "environmental"
#: Records of one fetch.
BATCH = 5_000


def load(total: int, unknown: float, bad: float) -> list[Fetched]:
    """Batches of messages of which these shares have an unknown field, or are no JSON."""
    rows = []
    for number, (device, stamp, payload) in enumerate(messages(total)):
        end = b"}"
        if number % 100 < bad * 100:
            end = b""
        elif number % 100 < (bad + unknown) * 100:
            end = b',"firmware":"1.0.3"}'
        rows.append((device, payload[:-1] + end, stamp, b"%022d" % number))
    batches = []
    for start in range(0, total, BATCH):
        keys, values, stamps, ids = (list(column) for column in zip(*rows[start : start + BATCH], strict=True))
        headers = {topics.MESSAGE_ID: ids, topics.DEVICE_TYPE: TYPE.encode(), topics.PROFILE: b"bench"}
        batches.append(fetched(Records(keys, values, stamps, headers), topics.RAW, base_offset=start))
    return batches


def run_stages(operator: Ingest, part: Fetched) -> None:
    """Raw bytes to normalised columns."""
    batch = Batch(Shared(part))
    for group in operator.read(batch, {}):
        derive(group.device_type, group.messages.measures)
    batch.finish()


def run_whole(operator: Ingest, part: Fetched) -> None:
    """Raw bytes to encoded readings."""
    batch = Batch(Shared(part))
    operator.process(batch)
    batch.finish()


def run_orjson(part: Fetched) -> None:
    """Nothing but the parser."""
    documents = []
    for payload in part.records.values:
        try:
            documents.append(orjson.loads(payload or b""))
        except orjson.JSONDecodeError:
            continue


def run_pydantic(validate: Callable[[bytes], BaseModel], part: Fetched) -> None:
    """One model per message."""
    models = []
    for payload in part.records.values:
        try:
            models.append(validate(payload or b""))
        except ValidationError:
            continue


def model_of(device_type: DeviceType) -> type[BaseModel]:
    """The device type as a model: every payload name, typed and with its range, unknown fields kept."""
    fields: dict[str, Any] = {
        name: Annotated[int | str | None, Field(None)] for name in (*device_type.time.fields, *device_type.identity)
    }
    for name, spec in device_type.fields.items():
        for source in device_type.sources[name]:
            bounds = Field(None, ge=spec.min, le=spec.max, alias=source.name)
            fields[source.name.replace(".", "_")] = Annotated[float | None, bounds]
    return create_model("Message", __config__=ConfigDict(extra="allow"), **fields)


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", choices=["stages", "whole", "orjson", "pydantic"], default="stages")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=1, help="through all messages; more for a longer run")
    parser.add_argument("--unknown", type=float, default=0.0)
    parser.add_argument("--bad", type=float, default=0.0)
    arguments = parser.parse_args()
    types = load_device_types()
    makers: dict[str, Callable[[], Callable[[Fetched], None]]] = {
        "stages": lambda: partial(run_stages, Ingest(types)),
        "whole": lambda: partial(run_whole, Ingest(types)),
        "orjson": lambda: run_orjson,
        "pydantic": lambda: partial(run_pydantic, model_of(types[TYPE]).model_validate_json),
    }
    batches = load(arguments.messages, arguments.unknown, arguments.bad)
    spent = 0.0
    for _ in range(arguments.rounds):
        run = makers[arguments.variant]()
        began = time.process_time()
        for part in batches:
            run(part)
        spent += time.process_time() - began
    print(json.dumps({"value": arguments.rounds * arguments.messages / spent}))


if __name__ == "__main__":
    main()
