"""`headrace bridge` with HTTP ingest, as a user meets it: clients post, a worker runs beside it."""

import contextlib
import gzip
import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from time import sleep
from typing import Any, NamedTuple

import orjson
import psutil
import pytest

from headrace.engine.clock import SystemClock
from tests.cli.test_bridge import PATIENCE, end, payloads, start, wait_started
from tests.conftest import IN_CI, Require
from tests.mosquitto import free_port

__all__ = ["start"]
clock = SystemClock()
SENSOR = {"sensor_id": "hall-1", "type": "temperature", "value": 21.5, "location": "hall", "timestamp": 1750000000000}
READING = {"device_id": "roof-7", "timestamp": 1750000000000, "temperature": 20}
#: Waits for what ingest says; far longer than it takes.
WAIT = f"wait={PATIENCE:.0f}"
#: MB that no attack may add.
MOST_MB = 50


class Answer(NamedTuple):
    """An answer, its body as JSON."""

    status: int
    document: Any


class Client:
    """Asks one bridge; a connection per request."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """`_` in names of headers is `-`; bytes are sent as they are, others as JSON."""
        data = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, data, {"Content-Type": "application/json"} | given)
            response = connection.getresponse()
            return Answer(response.status, orjson.loads(response.read()))
        finally:
            connection.close()

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        """Post."""
        return self.ask("POST", path, body, **headers)


@pytest.fixture
def bridge(start: Any, request: pytest.FixtureRequest) -> Iterator["tuple[subprocess.Popen[str], Client]"]:
    """A bridge that serves HTTP, with the settings that a test asks for.

    It ends as it should: killed, it would leave the database that it asks.
    """
    port, more = free_port(), getattr(request, "param", "")
    process = start(f"[http]\nport = {port}\nmax_wait = {PATIENCE}\n{more}", "--json")
    assert f"http: http://127.0.0.1:{port} into" in wait_started(process)
    client = Client(port)
    until_listening(port)
    yield process, client
    process.terminate()
    process.wait(PATIENCE)


@pytest.fixture
def worker(bridge: Any, tmp_path: Path) -> Iterator[None]:
    """A worker on the same data folder."""
    with _running("worker", tmp_path):
        yield


@pytest.fixture
def database(bridge: Any, tmp_path: Path) -> Iterator[None]:
    """The data folder's own, and a sink that fills it."""
    with _running("sink", tmp_path):
        deadline = clock.monotonic() + PATIENCE
        while bridge[1].ask("GET", "/api/data").status != 200:
            assert clock.monotonic() < deadline
            sleep(0.1)
        yield


@contextmanager
def _running(command: str, folder: Path) -> Iterator[None]:
    called = [sys.executable, "-m", "headrace.cli.main", command, "--data", str(folder / "data")]
    process = subprocess.Popen(called, stderr=subprocess.PIPE, text=True)
    try:
        assert "Ctrl-C stops" in wait_started(process)
        yield
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


def until_listening(port: int) -> None:
    """Wait until somebody takes connections there."""
    deadline = clock.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert clock.monotonic() < deadline
            sleep(0.05)


async def test_what_ingest_says_is_the_answer(bridge: Any, worker: Any, tmp_path: Path) -> None:
    """201 for what is stored, and again for the same; 409 for what contradicts it; 400 for what is wrong."""
    process, client = bridge

    first = client.post("/sensor/data", SENSOR, Prefer=WAIT)
    again = client.post("/sensor/data", SENSOR, Prefer=WAIT)
    other = client.post("/sensor/data", SENSOR | {"value": 3}, Prefer=WAIT)
    no_json = client.post("/sensor/data", b"{")
    wrong = client.post("/sensor/data", SENSOR | {"type": "smell"})
    batch = client.post("/batch", [READING, READING | {"temperature": 1}, {}], Prefer=WAIT)

    assert [each.status for each in (first, again, other, no_json, wrong)] == [201, 201, 409, 400, 400]
    assert no_json.document["type"] != wrong.document["type"]
    assert other.document["stored"] == {"temperature": 21.5}
    assert [each["status"] for each in batch.document["items"]] == ["stored", "conflict", "refused"]
    assert len(await payloads(tmp_path / "data", 5)) == 5
    values = client.ask("GET", "/api/data")  # there is no sink
    assert (values.status, "headrace sink" in values.document["detail"]) == (503, True)
    said, _ = end(process)
    assert json.loads(said)["http"]["appended"] == 5


async def test_newest_values(bridge: Any, worker: Any, database: Any) -> None:
    """What collectors posted can be asked for, when the sink has stored it."""
    row = {"device_id": "wall-3", "sensor_type": "temperature", "value": 68, "unit": "F"}
    _, client = bridge
    assert client.post("/api/data", row, Prefer=WAIT).status == 201
    deadline = clock.monotonic() + PATIENCE
    while not (answer := client.ask("GET", "/api/data?device_id=wall-3")).document["data"]:
        assert clock.monotonic() < deadline
        await clock.sleep(0.1)

    (found,) = answer.document["data"]
    assert found["timestamp"].endswith("+00:00")
    assert found | {"timestamp": ""} == row | {"value": 20, "unit": "degC", "timestamp": ""}
    assert client.ask("GET", "/api/data?limit=0").status == 400
    assert client.ask("GET", "/api/data?device_id=nobody").document == {"data": []}


@pytest.mark.timeout(900)
def test_whatever_the_description_allows(bridge: Any, worker: Any, database: Any, tmp_path: Path) -> None:
    """Asked at random by its own description it has no error of its own, and answers nothing that is not described."""
    _, client = bridge
    # A batch of too many is refused with 413, which is no refusal of bad data to Schemathesis.
    refusals = '[400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, "5xx"]'
    (tmp_path / "schemathesis.toml").write_text(f"[checks]\nnegative_data_rejection.expected-statuses = {refusals}\n")
    # What stands in a description cannot say all that a device type does, so good requests may be refused with 400.
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{client.port}/openapi.json"]
    command += ["--exclude-checks", "positive_data_acceptance", "--max-examples", "25", "--continue-on-failure"]
    command += ["--request-timeout", "300", "--no-color", "--phases", "examples,coverage,fuzzing"]
    command += ["--generation-deterministic"] if IN_CI else []
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=800, check=False)

    assert found.returncode == 0, found.stdout[-8_000:] + found.stderr
    assert client.ask("GET", "/health").status == 200


def _slow(port: int, pieces: list[bytes]) -> list[socket.socket]:
    """Connections that have sent so much, and say no more."""
    open_ones = []
    for piece in pieces:
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setblocking(False)
        left = memoryview(piece)
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while left:
                left = left[connection.send(left) :]
        open_ones.append(connection)
    return open_ones


@pytest.mark.parametrize("bridge", ["head_timeout = 10\nbody_timeout = 10\n"], indirect=True)
def test_attacks_cost_no_memory(bridge: Any) -> None:
    """Bombs of gzip, nesting and numbers are refused, slow clients are ended, and the process stays small."""
    process, client = bridge
    resident = psutil.Process(process.pid).memory_info
    assert client.post("/batch", [READING] * 2_000).status == 202
    before = most = resident().rss
    zeros, head = gzip.compress(b"0" * (1 << 30), 9), b'{"device_id": "d", "timestamp": 1, "x": '
    bombs = [
        ("/batch", zeros, "gzip", {413}),
        ("/sensor/data", zeros, "gzip", {413}),
        ("/batch", gzip.compress(b"[" + b"0," * (4 << 20) + b"0]", 9), "gzip", {413}),
        ("/batch", gzip.compress(b"[" + b"{}," * 2_000_000 + b"{}]", 9), "gzip", {413}),
        ("/batch", b"[" * (4 << 20), "identity", {400}),
        ("/batch", b"[" + b",".join([head + b"[" * 200_000 + b"]" * 50_000 + b"}"] * 12) + b"]", "identity", {400}),
        ("/batch", b"[" + b",".join([head + b"[" + b"[]," * 8_000 + b"1]}"] * 37) + b"]", "identity", {200, 202, 413}),
        ("/batch", gzip.compress(b"\n".join([head + b"{}" * 0 + b"9" * 200_000 + b"}"] * 30)), "gzip", {200, 400}),
        ("/sensor/data", b'{"value": ' + b"9" * 200_000 + b"}", "identity", {400}),
        ("/sensor/data", b'{"value": ' + b"[" * 200_000, "identity", {400}),
        ("/sensor/data", b"{" + b",".join(b'"k%d":{}' % each for each in range(20_000)) + b"}", "identity", {400}),
    ]
    long_head = b"POST /batch HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 4000000\r\n\r\n["
    spaces, one = b" " * 3_900_000, orjson.dumps(READING)
    waits = (
        b"POST /batch HTTP/1.1\r\nContent-Type: application/json\r\nPrefer: wait=5\r\nContent-Length: %d\r\n\r\n[%s]"
    )
    slow = _slow(client.port, [b"POST /batch HTTP/1.1\r\nX"] * 300 + [long_head] * 30 + [b""] * 100)
    # All but the end of large bodies; and behind a request that waits for ingest as much of another as is taken.
    slow += _slow(client.port, [long_head + spaces] * 20)
    slow += _slow(client.port, [waits % (len(one) + 2, one) + long_head + spaces] * 200)
    try:
        for path, body, encoding, allowed in bombs:
            kind = "application/x-ndjson" if b"\n" in body[:300_000] and encoding == "identity" else "application/json"
            answer = client.post(path, body, Content_Encoding=encoding, Content_Type=kind)
            # 408, as a machine with much else to do does not read a body of 4 MB in time.
            assert answer.status in allowed | {408, 429}, answer
            most = max(most, resident().rss)
            assert client.post("/devices/roof-7/telemetry", READING, Prefer="respond-async").status == 202
        with ThreadPoolExecutor(16) as threads:  # and many at once
            sent = [threads.submit(client.post, path, body, Content_Encoding=how) for path, body, how, _ in 4 * bombs]
            while not all(each.done() for each in sent):
                most = max(most, resident().rss)
                sleep(0.02)
        assert {each.result().status for each in sent} <= {200, 202, 400, 408, 413, 429}
        for connection in slow:
            connection.settimeout(PATIENCE)
            with contextlib.suppress(ConnectionError):
                while connection.recv(65536):
                    pass
            most = max(most, resident().rss)
    finally:
        for connection in slow:
            connection.close()

    print(f"{(most - before) / 1e6:.1f} MB")
    assert (most - before) / 1e6 < MOST_MB
    assert client.post("/batch", [READING]).status == 202


@pytest.mark.parametrize("bridge", ["verdict_timeout = 60\n"], indirect=True)
def test_examples_of_the_guide(bridge: Any, worker: Any, require: Require) -> None:
    """Every curl in it prints what it says, one after the other; ids are those of the day."""
    require(shutil.which("curl"), "curl", "install the package `curl`")
    _, client = bridge
    page = (Path(__file__).parents[2] / "docs" / "guides" / "http.md").read_text()
    examples = re.findall(r"^\$ (curl .*)\n(.*)$", page, re.MULTILINE)

    assert len(examples) == 10
    for command, expected in examples:
        called = shlex.split(command.replace("localhost:8080", f"127.0.0.1:{client.port}"))
        said = subprocess.run(called, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
        assert re.sub(r'"message_id":"[0-9a-f-]{36}"', '"message_id":"…"', said) == expected


def test_mistakes(start: Any) -> None:
    """A host that is open to others without keys, a certificate that is not there: named, and nothing is started."""
    process = start('[http]\nport = 1\nhost = "0.0.0.0"\n')
    _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "api_keys" in said) == (2, True)
    process = start(
        '[http]\nport = 1\ncertificate = "no.pem"\nkey = "no.key"\n[bridge]\ninto = "log"\n', "--processes", "2"
    )
    _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "no.pem" in said, "--processes" in said) == (2, True, True)


def test_a_port_that_is_taken(start: Any) -> None:
    """It is said, and not that anybody listens there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start(f"[http]\nport = {taken.getsockname()[1]}\n")
        _, said = process.communicate(timeout=PATIENCE)

    assert (process.returncode, "is taken; set another http.port" in said, "Ctrl-C" in said) == (2, True, False)
