"""The object-store port: whole objects on a local disk or in S3, by obstore."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore, S3Store

from headrace.connectors.archive.settings import ArchiveSettings
from headrace.engine.errors import ConfigError, RetryLater

#: Times that obstore itself repeats a request to S3.
RETRIES = 3

Answer = TypeVar("Answer")


class ObjectStore(Protocol):
    """Objects by name, each a whole number of bytes. A name is a path with slashes."""

    async def put(self, name: str, data: bytes) -> None:
        """Store an object, whole or not at all; it outlives a power cut when this returns.

        Raises:
            RetryLater: it may or may not be stored.
        """
        ...

    async def get(self, name: str) -> bytes:
        """The bytes of an object, from the store.

        Raises:
            FileNotFoundError: there is none.
            RetryLater: the store does not answer now.
        """
        ...

    async def delete(self, name: str) -> None:
        """Remove an object; nothing happens if it is not there."""
        ...

    async def list(self, prefix: str = "") -> list[tuple[str, int]]:
        """Names and bytes of all objects below a folder, by name."""
        ...

    def scan(self, name: str) -> tuple[str, dict[str, str]]:
        """What `polars.scan_parquet` needs to read parts of an object: path and storage options."""
        ...


class ArchiveStore:
    """An object store reached by obstore.

    Its blocking calls, in threads: after an error of an asynchronous one the interpreter aborts when it ends (obstore
    0.12.1; exit code 134 in 5 of 6 runs).

    Args:
        store: of obstore.
        root: folder that a local store is in.
        where: URL and storage options for polars, of another one.
    """

    def __init__(self, store: Any, root: Path | None = None, where: tuple[str, dict[str, str]] = ("", {})) -> None:
        self._store = store
        self._root = root
        self._where = where

    async def put(self, name: str, data: bytes) -> None:
        await self._call(self._put, name, data)

    def _put(self, name: str, data: bytes) -> None:
        obstore.put(self._store, name, data, mode="overwrite")
        if self._root is not None:
            _sync(self._root, name)

    async def get(self, name: str) -> bytes:
        def read() -> bytes:
            return bytes(obstore.get(self._store, name).bytes())

        with translated(missing=FileNotFoundError):
            return await asyncio.to_thread(read)

    async def delete(self, name: str) -> None:
        def remove() -> None:
            try:
                obstore.delete(self._store, name)
            except FileNotFoundError:
                return

        await self._call(remove)

    async def list(self, prefix: str = "") -> list[tuple[str, int]]:
        def read() -> list[tuple[str, int]]:
            pages = obstore.list(self._store, prefix=prefix or None)
            return sorted((each["path"], each["size"]) for page in pages for each in page)

        return await self._call(read)

    def scan(self, name: str) -> tuple[str, dict[str, str]]:
        if self._root is not None:
            return str(self._root / name), {}
        url, options = self._where
        return f"{url}/{name}", options

    async def _call(self, work: Callable[..., Answer], *arguments: object) -> Answer:
        with translated():
            return await asyncio.to_thread(work, *arguments)


@contextmanager
def translated(missing: type[Exception] = RetryLater) -> Iterator[None]:
    """Raise what a store says as `RetryLater`; that an object is not there, or its bucket, as `missing`."""
    try:
        yield
    except FileNotFoundError as error:
        raise missing(f"archive: {str(error).split(chr(10), 1)[0]}") from error
    except (BaseError, OSError, ValueError) as error:
        # obstore adds its own view of the error after an empty line.
        reason = str(error).split("\n\n", 1)[0]
        raise RetryLater(f"archive: {type(error).__name__}: {reason}") from error


def memory_store() -> ArchiveStore:
    """A store that forgets everything with the process; polars cannot scan it."""
    return ArchiveStore(MemoryStore())


def open_store(settings: ArchiveSettings, folder: Path | None) -> ArchiveStore:
    """The store that `settings` name, or the folder `archive` of a data folder.

    Raises:
        ConfigError: there is neither, or it cannot be one.
    """
    if settings.url is None and folder is None:
        raise ConfigError("[archive] url is missing: file:///path or s3://bucket/prefix; or give --data")
    if settings.url is not None and settings.url.startswith("s3://"):
        return _s3(settings)
    root = (folder / "archive") if settings.url is None and folder else Path(unquote(urlsplit(settings.url or "").path))
    try:
        new = [each for each in (root, *root.parents) if not each.exists()]
        root.mkdir(parents=True, exist_ok=True)
        for made in new:
            _sync_path(made.parent)
        return ArchiveStore(LocalStore(root), root.resolve())
    except (BaseError, OSError) as error:
        raise ConfigError(f"[archive] {root} cannot be used: {error}") from error


def _s3(settings: ArchiveSettings) -> ArchiveStore:
    assert settings.url is not None
    bucket, _, prefix = settings.url.removeprefix("s3://").partition("/")
    secrets = {
        "access_key_id": settings.access_key_id,
        "secret_access_key": settings.secret_access_key,
        "session_token": settings.session_token,
    }
    options: dict[str, Any] = {name: value.get_secret_value() for name, value in secrets.items() if value is not None}
    options |= {
        name: value for name, value in (("region", settings.region), ("endpoint", settings.endpoint_url)) if value
    }
    scan = {f"aws_{name}": value for name, value in options.items()}
    if (settings.endpoint_url or "").startswith("http://"):
        scan["aws_allow_http"] = "true"
    store = S3Store(
        bucket,
        prefix=prefix.strip("/") or None,
        client_options={
            "timeout": timedelta(seconds=settings.request_timeout),
            "allow_http": (settings.endpoint_url or "").startswith("http://"),
        },
        retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=settings.request_timeout)},
        **options,
    )
    return ArchiveStore(store, where=(settings.url.rstrip("/"), scan))


def _sync(root: Path, name: str) -> None:
    """Make the file, and its place in every folder above it, outlive a power cut: object stores rename, and no more."""
    path = root / name
    _sync_path(path)
    for folder in path.parents:
        _sync_path(folder)
        if folder == root:
            return


def _sync_path(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
