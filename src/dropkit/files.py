"""Read and write files in untrusted folders: only regular files are read, and writes follow no symbolic link.

Writes are atomic: a temporary file beside the target replaces it, so that neither readers nor a full disk see half of
a file.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from functools import cache
from pathlib import Path

# Reading a larger file, such as a sparse one, could take all memory.
MAX_SIZE = 1 << 30
# Without O_NONBLOCK, opening a FIFO would wait for its other end. Windows has none of these flags.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
# Links in these folders are the system's own, such as /dev/stdout.
_SYSTEM_FOLDERS = (("/", "dev"), ("/", "proc"))
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}


def read(path: str | Path, follow: bool = True, limit: int | None = MAX_SIZE) -> bytes:
    """Return the content of a regular file, or of a symbolic link to one if `follow`.

    Raises:
        OSError: it cannot be read, is not a regular file, or is larger than `limit` bytes.
    """
    # Checked before opening, too: opening a device can have effects.
    _must_be_regular(os.stat(path, follow_symlinks=follow), path, limit)
    handle = os.open(path, _READ | (0 if follow else getattr(os, "O_NOFOLLOW", 0)))
    with open(handle, "rb") as file:
        _must_be_regular(os.fstat(handle), path, limit)
        return file.read()


def _must_be_regular(status: os.stat_result, path: str | Path, limit: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise OSError(errno.EINVAL, f"must be a regular file, got {kind}", str(path))
    if limit is not None and status.st_size > limit:
        raise OSError(errno.EFBIG, f"must hold at most {limit >> 30} GiB, got {status.st_size} bytes", str(path))


def write(path: str | Path, data: bytes) -> None:
    """Write a file atomically. An existing one keeps its permissions, and its owner where possible.

    Devices and FIFOs are written in place.

    Raises:
        OSError: it cannot be written, is a symbolic link, or lies behind one that leads out of its project. The file is
            unchanged.
    """
    try:
        _write(Path(path), data)
    except OSError as error:
        # Name the caller's file, not the temporary one.
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
    if stat.S_ISLNK(old.st_mode) and path.parts[:2] not in _SYSTEM_FOLDERS:
        raise OSError(errno.ELOOP, "must not be a symbolic link")
    return _write_in_place(path, data)


def create(path: Path, data: bytes) -> None:
    """Write a new file; do nothing if anything has its name, even a broken link."""
    with suppress(FileExistsError), open(os.open(path, _CREATE, 0o666), "wb") as file:
        file.write(data)


def _replace(path: Path, data: bytes, old: os.stat_result | None) -> None:
    # Not derived from the name of the file, which could become too long.
    temporary = path.parent / f".dropkit-{os.urandom(8).hex()}.tmp"
    handle = os.open(temporary, _CREATE, 0o666 if old is None else stat.S_IMODE(old.st_mode) & 0o777)
    try:
        with open(handle, "wb") as file:
            if old is not None:
                _copy_status(temporary, old)
            file.write(data)
            file.flush()
            # A full disk may be reported only here, while the old file still exists.
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _copy_status(path: Path, old: os.stat_result) -> None:
    with suppress(OSError, AttributeError):  # only the superuser can change owners; Windows has none
        os.chown(path, old.st_uid, old.st_gid)
    os.chmod(path, stat.S_IMODE(old.st_mode))


def _write_in_place(path: Path, data: bytes) -> None:
    # A FIFO without a reader is an error: do not wait for one.
    handle = os.open(path, os.O_WRONLY | os.O_TRUNC | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "wb") as file:
        if hasattr(os, "set_blocking"):
            os.set_blocking(handle, True)
        file.write(data)


def why_not_read(path: str | Path) -> str | None:
    """Why a file cannot be read, as far as its status says; None if it can be tried."""
    try:
        status = os.stat(path)
    except OSError as error:
        return reason(error)
    return None if stat.S_ISREG(status.st_mode) else "not a regular file"


def why_not_edited(path: str | Path) -> str | None:
    """Why a source file must not be edited; None if it may be.

    An edit through a link would change files with other names; a read-only file is protected on purpose.
    """
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link"
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if status.st_nlink > 1:
        return f"has {status.st_nlink} names (hard links)"
    # The mode is checked, too: the superuser has access to read-only files.
    if not status.st_mode & 0o222 or not os.access(path, os.W_OK):
        return "is read-only"
    return "lies behind a symbolic link that leads out of its project" if leads_out(path) else None


def leads_out(path: str | Path) -> bool:
    """Whether a folder above `path` is a symbolic link out of the project, or working directory, that contains it."""
    for folder in Path(os.path.abspath(path)).parents:
        if folder.is_symlink():
            root = project_root(str(folder.parent)) or _working_directory(folder)
            if root is not None and not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(root)):
                return True
    return False


def _working_directory(path: Path) -> str | None:
    """The working directory, if it contains `path`."""
    current = os.getcwd()
    return current if path.is_relative_to(current) else None


@cache
def project_root(folder: str) -> str | None:
    """The root of the project that contains `folder`: the nearest folder with .git, pyproject.toml or setup.py."""
    for candidate in (Path(folder), *Path(folder).parents):
        if any(os.path.lexists(candidate / name) for name in (".git", "pyproject.toml", "setup.py")):
            return str(candidate)
    return None


def reason(error: OSError) -> str:
    """What went wrong, without the path."""
    return error.strerror or str(error) or type(error).__name__
