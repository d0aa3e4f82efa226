"""What downloads are allowed and how patient they are; the standard library only."""

from dataclasses import dataclass, fields
from typing import ClassVar

from mmdata.errors import UserError
from mmdata.fetch.policy import MIB, USER_AGENT, FetchPolicy
from mmdata.option_checks import Options, check_least


@dataclass(frozen=True, kw_only=True)
class DownloadOptions(Options):
    """What downloads are allowed and how patient they are."""

    section: ClassVar[str] = "Downloads"

    timeout: float = 20.0
    """Seconds that an attempt at a URL may take."""
    retries: int = 2
    """Further attempts where that may help: lost connections, 408, 425, 429, 5xx."""
    per_host: int = 4
    """Requests to one host at a time, by each worker."""
    concurrency: int = 64
    """Requests at a time, by each worker."""
    max_bytes: int = 32 * MIB
    """Most bytes of a download, as it is sent and as it is unpacked."""
    allow_private_hosts: bool = False
    """Also ask loopback, private and link-local addresses (intranets, tests)."""
    ignore_noai: bool = False
    """Also take images sent with X-Robots-Tag noai or noimageai."""
    user_agent: str = USER_AGENT
    """Who asks; sites like to find a way to reach you in it."""

    def _check(self) -> None:
        if not 0 < self.timeout <= 86_400:
            raise UserError(f"--timeout {self.timeout:g}: expected seconds, more than 0")
        check_least(self, 0, "retries")
        check_least(self, 1, "per_host", "concurrency", "max_bytes")
        agent = self.user_agent
        if not agent.strip() or not agent.isascii() or not agent.isprintable():
            raise UserError(f"--user-agent {agent!r}: expected printable ASCII")

    def fetch_policy(self) -> FetchPolicy:
        """The limits of downloads."""
        given = {column.name: getattr(self, column.name) for column in fields(DownloadOptions)}
        return FetchPolicy(**given)
