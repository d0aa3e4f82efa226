"""Object stores behind URLs: which paths are URLs, their file systems, their errors in one line.

fsspec knows the protocols (`s3://`, `gs://`, `hf://`, `http(s)://`); this module decides how they
are opened: credentials from the environment alone, no listing cache (another process writes there
too), and retries that outlast an outage of about a minute (AWS_MAX_ATTEMPTS and AWS_RETRY_MODE
override). `os.path.join`, `dirname` and `basename` work on URLs as they are.
"""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from mmdata.errors import MissingExtraError, MMDataError, StorageError, UserError

#: Of an upload, and what is read ahead of a file that is read in order.
PART_BYTES = 16 * 2**20
#: Protocols that shards can be written to; gs:// goes through the same calls and is untested.
WRITABLE = ("s3", "gs")
#: The optional extra, and the package, that a protocol needs.
EXTRAS = {
    "s3": ("s3", "s3fs"),
    "gs": ("gs", "gcsfs"),
    "hf": ("hf", "huggingface_hub"),
    "http": ("download", "aiohttp"),
    "https": ("download", "aiohttp"),
}
_ALIASES = {"s3a": "s3", "gcs": "gs"}
_ATTEMPTS = 12
_filesystems: dict[tuple[str, int], Any] = {}


def is_url(path: str) -> bool:
    """Whether a path is in a store rather than on a disk."""
    return "://" in path


def protocol_of(url: str) -> str:
    """The store of a URL: s3, gs, hf, http or https."""
    name = url.partition("://")[0].lower()
    return _ALIASES.get(name, name)


def is_web(path: str) -> bool:
    """Whether a path is on a web server: read from start to end, not listed, not written to."""
    return path.lower().startswith(("http://", "https://"))


def absolute(path: str) -> str:
    """A path that means the same from any working folder.

    Raises:
        UserError: a URL that holds a password, or of an unknown store.
    """
    if not is_url(path):
        return os.path.abspath(path)
    check_url(path)
    return path.rstrip("/")


def check_url(url: str) -> None:
    """Refuse a URL with credentials in it, which would end up in plan and logs.

    Raises:
        UserError: it has some, or no store is known by its protocol.
    """
    protocol = protocol_of(url)
    if protocol not in EXTRAS:
        raise UserError(f"{url}: expected a path or a URL of {', '.join(sorted(EXTRAS))}")
    parts = urlsplit(url)
    if parts.username or parts.password:
        where = f"{protocol}://…@{parts.hostname or ''}{parts.path}"
        raise UserError(f"{where}: credentials belong in the environment, not in a URL")


def check_writable(url: str, flag: str) -> None:
    """Refuse what shards cannot be written to.

    Raises:
        UserError: a store that is only read from, or none that is known.
    """
    if not is_url(url):
        return
    check_url(url)
    if protocol_of(url) not in WRITABLE:
        raise UserError(f"{flag} {url}: shards are written to a folder, s3:// or gs://")


def filesystem(url: str) -> Any:
    """The fsspec file system of a URL, one for each process and store.

    Raises:
        UserError: see `check_url`.
        MissingExtraError: the package for this store is not installed.
    """
    protocol = protocol_of(url)
    key = (protocol, os.getpid())
    if key not in _filesystems:
        check_url(url)
        import fsspec

        try:
            _filesystems[key] = fsspec.filesystem(protocol, **_options(protocol))
        except ImportError as error:
            extra, package = EXTRAS[protocol]
            raise MissingExtraError(extra, package, f"{protocol}://") from error
    return _filesystems[key]


def _options(protocol: str) -> dict[str, Any]:
    options: dict[str, Any] = {"use_listings_cache": False}
    if protocol == "s3" and "AWS_MAX_ATTEMPTS" not in os.environ:
        retries = {"mode": "standard", "total_max_attempts": _ATTEMPTS}
        options["config_kwargs"] = {"retries": retries}
    return options


@contextmanager
def store_errors(url: str) -> Iterator[None]:
    """Within, what the libraries of a store raise becomes an OSError that names the URL.

    FileNotFoundError, FileExistsError and PermissionError keep their class.

    Raises:
        StorageError: the store does not answer, refuses, or answers nonsense.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError, MMDataError):
        raise
    except PermissionError as error:
        raise StorageError(
            f"{url}: access denied: {_text(error)}; check the credentials"
        ) from error
    except _library_errors() as error:
        raise StorageError(f"{url}: the store failed: {_text(error)}") from error


def _library_errors() -> tuple[type[BaseException], ...]:
    """The roots of what the stores' libraries raise, of those that are loaded."""
    known = (
        ("aiohttp", "ClientError"),
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
        ("httpx", "HTTPError"),
        ("gcsfs.retry", "HttpError"),
    )
    loaded = (getattr(sys.modules.get(module), name, None) for module, name in known)
    return (OSError, asyncio.TimeoutError, *(error for error in loaded if error is not None))


def _text(error: BaseException) -> str:
    """An error in one line; the libraries put no credentials in theirs."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return text or type(error).__name__
