"""What can go wrong, split first by whose fault it is.

Only these classes cross a module border; each hand translates the foreign exceptions of the one thing it wraps and
keeps the cause. `exit_status` is what the process ends with when nobody catches the error.
"""

from __future__ import annotations

import errno


class BatchfoxError(Exception):
    """Root of all errors that a user may see; `str(error)` says what, where and what next."""

    exit_status = 1


class UserError(BatchfoxError):
    """The user can mend it: usage, job file, input, permission. Nothing was sent."""

    exit_status = 2


class JobError(UserError):
    """The job file (or a `--set`) is refused: names the key's path, what was found and what was expected."""


class InputError(UserError):
    """The input cannot be read, or changed below what is done."""


class OutputError(UserError):
    """The output folder or its checkpoint cannot be used: permission, newer version, corruption, foreign parts."""


class DamagedError(OutputError):
    """The checkpoint is not what batchfox wrote: cut short, overwritten, or not a database at all."""


class OutputBusyError(BatchfoxError):
    """Another live run holds this output."""

    exit_status = 5


class ApiGoneError(BatchfoxError):
    """The API cannot be asked what has to be known first. What was recorded stays; the run can be begun again."""

    exit_status = 4


class TooLateError(BatchfoxError):
    """The window of a scheduled run is over before it could begin. Nothing was sent; the next one goes on."""

    exit_status = 4


class MachineError(BatchfoxError):
    """This machine failed: disk full, I/O error. What was recorded stays; the run can be resumed."""

    exit_status = 4


class DiskFullError(MachineError):
    """There is no room left on the disk, or in the quota."""


# What the system says where a machine has come to its end, and no program is wrong.
_MACHINE = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EIO,
        errno.EROFS,
        errno.ENOSPC,
        errno.EFBIG,
        errno.EDQUOT,
        errno.ESTALE,
    }
)


def machine_error(error: BaseException) -> MachineError | None:
    """A foreign error, or the first of a group of them, as one of the machine; None where it is not that."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for inner in error.exceptions if (found := machine_error(inner)) is not None), None)
    if not isinstance(error, OSError) or error.errno not in _MACHINE:
        return None
    where = f"{error.filename}: " if error.filename else ""
    return MachineError(
        f"{where}{error.strerror}; mend it (`batchfox doctor` may help), then run the same command again"
    )


# What the system says of a path that it does not take.
_PATH = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR})


def path_error(error: OSError, owner: str = "") -> UserError | None:
    """A foreign error as one of the path that the user gave; None where it is not that. `owner`: whose it is, where it
    is somebody else's."""
    if error.filename is None or error.errno not in _PATH:
        return None
    name = str(error.filename)
    shown = name if len(name) <= 300 else f"{name[:200]}… ({len(name):,} characters)"
    if owner:
        return UserError(f"{shown}: {error.strerror}: {owner}; ask them for the right to it, or give another path")
    return UserError(f"{shown}: {error.strerror}; give another path, or mend its permissions")
