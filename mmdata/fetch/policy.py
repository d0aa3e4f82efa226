"""What downloads are allowed and how patient they are, as a plain dataclass.

Only the standard library is imported here, so that `mmdata --help` does not pay for aiohttp.
"""

from dataclasses import dataclass

from mmdata import __version__

MIB = 2**20
#: Names the tool; sites that want to know who asks should be told more with --user-agent.
USER_AGENT = f"mmdata/{__version__}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPolicy:
    """Limits of one worker's downloads."""

    timeout: float = 20.0
    """Seconds that one attempt may take, redirects and body included; waiting for a turn is not."""
    retries: int = 2
    """Further attempts after what may pass: lost connections, 408, 425, 429 and 5xx."""
    per_host: int = 4
    """Requests to one host at a time."""
    concurrency: int = 64
    """Requests at a time."""
    max_bytes: int = 32 * MIB
    """The most bytes of a response's body, both as sent and as unpacked."""
    max_redirects: int = 5
    max_wait: float = 60.0
    """Seconds that a host may ask to be left alone and is waited for; beyond, its URLs fail."""
    allow_private_hosts: bool = False
    """Whether addresses that are not public (loopback, private, link-local) may be asked."""
    ignore_noai: bool = False
    """Whether images that are sent with `X-Robots-Tag: noai` or `noimageai` are kept."""
    user_agent: str = USER_AGENT
