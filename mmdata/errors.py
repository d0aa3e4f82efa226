"""Errors that a person can act on: one clear line, and the exit code that goes with it.

Exit codes everywhere: 0 done, 1 some units failed (or an input was of another form, or validate
has findings), 2 could not start, 3 interrupted (the same command goes on where it stopped), 85
asked to stop by SIGTERM or SIGUSR1 and saved: requeue (85 is Linux's ERESTART, "interrupted call
should be restarted").
"""

import re

from mmdata.installation import how_to_install

#: How Python shows an object that has no words of its own: `<_io.BytesIO object at 0x7f…>`.
_INSIDE = r"(?:[^<>]|<[^<>]*>)*"
_OBJECT = re.compile(rf"\s*<{_INSIDE}\bat 0x[0-9A-Fa-f]+{_INSIDE}>")
_MAX_WORDS = 2000  # characters

EXIT_DONE = 0
EXIT_FINDINGS = 1
EXIT_CANNOT_START = 2
EXIT_INTERRUPTED = 3
EXIT_REQUEUE = 85


class MMDataError(Exception):
    """Root of the errors that the command line shows as one line, without a traceback.

    The text says which file, which record, what is wrong and what to do.
    """

    exit_code = EXIT_CANNOT_START


class RelayedError(MMDataError):
    """What another process of the same run has found wrong; without a text it is said there."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class UserError(MMDataError, ValueError):
    """What was asked for cannot be done as asked; nothing was written."""


class BadInputError(MMDataError):
    """An input file is missing, damaged or of a kind that cannot be read.

    Attributes:
        short: the problem alone, without places on this machine; may be empty.
    """

    def __init__(self, text: str, *, short: str = "") -> None:
        super().__init__(text)
        self.short = short


class MissingExtraError(MMDataError, ImportError):
    """A command needs an optional extra that is not installed."""

    def __init__(self, extra: str, package: str, command: str) -> None:
        super().__init__(
            f"{command} needs {package}, which is not installed: {how_to_install(extra)}"
        )


class StorageError(MMDataError, OSError):
    """A store does not answer, or not as it should; what was committed stays."""

    exit_code = EXIT_FINDINGS


class ReadFaultError(MMDataError, OSError):
    """A disk, a mount or this machine does not hand out a file; nothing is said about the file."""

    exit_code = EXIT_FINDINGS

    def __init__(self, path: str, error: OSError) -> None:
        super().__init__(
            f"{path}: cannot be read: {error.strerror or error}; that is the disk's or the "
            "machine's fault, so nothing is dropped: mend it, or remove the file to have it "
            "counted as missing, and run the same command again"
        )
        self.errno = error.errno


def words_of(error: BaseException) -> str:
    """What an exception of another library says, as one line that is the same in every run.

    Libraries put the objects they worked on into their texts, and with them where these lie in
    memory. What goes into rejects, tables and sidecars goes through here; an exception without
    words gives its name.
    """
    text = " ".join(_OBJECT.sub("", str(error)[:_MAX_WORDS]).split())
    return text or type(error).__name__
