"""Files in trees that nobody vouches for: only regular files are read, and no write follows a symbolic link.

A file is written to a temporary one beside it, which then takes its place in one step: a reader, or a full disk, never
meets half of it.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from functools import cache
from pathlib import Path

# No source or report is larger; reading what is, such as a sparse file, could take all memory.
_LARGEST = 1 << 30
# Opening a FIFO must not wait for whoever is at its other end. Windows has none of these.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
# Links in these are the system's own: /dev/stdout is one.
_SYSTEM = (("/", "dev"), ("/", "proc"))
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}


def read(path: str | Path, follow: bool = True) -> bytes:
    """Return the content of a regular file; a symbolic link to one will do if `follow`.

    Raises:
        OSError: it cannot be read, is not a regular file, or is larger than 1 GiB.
    """
    # Looked at before it is opened, too: to open some devices is to set them going.
    _must_be_regular(os.stat(path, follow_symlinks=follow), path)
    handle = os.open(path, _READ | (0 if follow else getattr(os, "O_NOFOLLOW", 0)))
    with open(handle, "rb") as file:
        _must_be_regular(os.fstat(handle), path)
        return file.read()


def _must_be_regular(status: os.stat_result, path: str | Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise OSError(errno.EINVAL, f"must be a regular file, got {kind}", str(path))
    if status.st_size > _LARGEST:
        raise OSError(errno.EFBIG, f"must hold at most 1 GiB, got {status.st_size} bytes", str(path))


def write(path: str | Path, data: bytes) -> None:
    """Replace the content of a file in one step, or create it. It keeps its permissions, and its owner if it may.

    A device or a FIFO, which nothing can take the place of, is written to as it is.

    Raises:
        OSError: it cannot be written, is a symbolic link, or lies behind one that leads out of its project. What was
            there is unchanged.
    """
    try:
        _write(Path(path), data)
    except OSError as error:
        # The one that the caller named, not the temporary one.
        raise OSError(error.errno, reason(error), str(path)) from error


def _write(path: Path, data: bytes) -> None:
    if leads_out(path):
        raise OSError(errno.ELOOP, "must not lie behind a symbolic link that leads out of its project")
    try:
        old = os.lstat(path)
    except FileNotFoundError:
        return _replace(path, data, None)
    if stat.S_ISREG(old.st_mode):
        return _replace(path, data, old)
    if stat.S_ISLNK(old.st_mode) and path.parts[:2] not in _SYSTEM:
        raise OSError(errno.ELOOP, "must not be a symbolic link")
    return _write_in_place(path, data)


def create(path: Path, data: bytes) -> None:
    """Write a file that does not exist yet; leave whatever has its name, be it a link that leads nowhere."""
    with suppress(FileExistsError), open(os.open(path, _CREATE, 0o666), "wb") as file:
        file.write(data)


def _replace(path: Path, data: bytes, old: os.stat_result | None) -> None:
    # A name of its own: one made from the file's could be too long.
    temporary = path.parent / f".dropkit-{secrets.token_hex(8)}.tmp"
    handle = os.open(temporary, _CREATE, 0o666 if old is None else stat.S_IMODE(old.st_mode) & 0o777)
    try:
        with open(handle, "wb") as file:
            if old is not None:
                _take_after(temporary, old)
            file.write(data)
            file.flush()
            # A full disk may say so only here, while the old file is still there.
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _take_after(path: Path, old: os.stat_result) -> None:
    with suppress(OSError, AttributeError):  # only the superuser gives files away; Windows has no owners
        os.chown(path, old.st_uid, old.st_gid)
    os.chmod(path, stat.S_IMODE(old.st_mode))


def _write_in_place(path: Path, data: bytes) -> None:
    # A FIFO that nobody reads is an error, not a reason to wait.
    handle = os.open(path, os.O_WRONLY | os.O_TRUNC | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "wb") as file:
        if hasattr(os, "set_blocking"):
            os.set_blocking(handle, True)
        file.write(data)


def why_not_edited(path: str | Path) -> str | None:
    """Why a source file is not to be edited; None if it may be.

    An edit would reach further than its name says (links), or where its owner does not want it (read-only).
    """
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link"
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if status.st_nlink > 1:
        return f"has {status.st_nlink} names (hard links)"
    # The bits of the mode bind the superuser, too.
    if not status.st_mode & 0o222 or not os.access(path, os.W_OK):
        return "is read-only"
    return "lies behind a symbolic link that leads out of its project" if leads_out(path) else None


def leads_out(path: str | Path) -> bool:
    """Whether a symbolic link on the way to `path` leads out of the project, or the working directory, it lies in."""
    way = Path(os.path.abspath(path))
    for folder in way.parents:
        if folder.is_symlink():
            home = project(str(folder.parent)) or _working_directory(folder)
            if home is not None and not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(home)):
                return True
    return False


def _working_directory(path: Path) -> str | None:
    here = os.getcwd()
    return here if path.is_relative_to(here) else None


@cache
def project(folder: str) -> str | None:
    """The folder of the project around `folder`: the nearest with .git, a pyproject.toml or a setup.py."""
    for one in (Path(folder), *Path(folder).parents):
        if any(os.path.lexists(one / name) for name in (".git", "pyproject.toml", "setup.py")):
            return str(one)
    return None


def reason(error: OSError) -> str:
    """What went wrong, without the path, which is said elsewhere."""
    return error.strerror or str(error) or type(error).__name__
