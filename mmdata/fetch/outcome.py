"""How the download of one URL ended."""

from dataclasses import dataclass
from enum import StrEnum


class FetchStatus(StrEnum):
    """Values stand in outcome tables, so they never change meaning."""

    OK = "ok"
    BAD_URL = "bad-url"
    """Not http(s), no host, credentials, control characters: it is never asked for."""
    PRIVATE_ADDRESS = "private-address"
    """The host, or one that it redirects to, is no public address."""
    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    HTTP_ERROR = "http-error"
    """A status other than 200; which one has a column of its own."""
    TOO_LARGE = "too-large"
    REDIRECTS = "redirects"
    """Too many, or one that leads nowhere."""
    NOAI = "noai"
    """The site asks not to be used for AI (`X-Robots-Tag`)."""
    CUT_OFF = "cut-off"
    """The connection ended before the body did."""
    BAD_ENCODING = "bad-encoding"
    """A Content-Encoding that was not asked for and cannot be undone, or is damaged."""
    PROTOCOL = "protocol"
    """What was answered is no HTTP."""


#: Statuses that may be another on a second try at once.
TRANSIENT = frozenset((FetchStatus.CONNECT, FetchStatus.CUT_OFF, FetchStatus.PROTOCOL))


@dataclass(slots=True)
class Fetched:
    """What came of a URL.

    Attributes:
        status: how it ended.
        data: the body, unpacked; empty unless `status` is ok.
        http_status: of the last response; None without one.
        attempts: requests that were begun, redirects not counted.
        seconds: from the first attempt to the end, waiting included.
        detail: one line for a person; empty when ok.
    """

    status: FetchStatus
    data: bytes = b""
    http_status: int | None = None
    attempts: int = 0
    seconds: float = 0.0
    detail: str = ""


class FetchError(Exception):
    """An attempt that failed.

    Attributes:
        status: how.
        detail: one line.
        http_status: of the response, where there was one.
        retry_after: seconds that the host asks to be left alone, where it does.
    """

    def __init__(
        self,
        status: FetchStatus,
        detail: str,
        *,
        http_status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.http_status = http_status
        self.retry_after = retry_after

    @property
    def is_transient(self) -> bool:
        """Whether trying again soon makes sense."""
        code = self.http_status
        if self.status == FetchStatus.HTTP_ERROR and code is not None:
            return code in (408, 425, 429) or code >= 500
        return self.status in TRANSIENT
