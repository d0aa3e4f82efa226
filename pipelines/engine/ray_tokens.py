"""Ray's tokens: to say in one line that a cluster and this process do not agree about them.

Since 2.60 Ray keeps a token in `~/.ray/auth_token`, made when a Ray of one's own first starts on a
machine, and `ray start --head` asks for it from then on, where it is found. A process that names
the address of a cluster sends it only with `RAY_AUTH_MODE=token`. What Ray says otherwise is 20
warnings, a second each, from code that is not Python's, and then that it could not connect. A
process with a token in a cluster without gets no answer from its tasks, and no word.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

#: In what Ray prints when a cluster takes no call without its token.
_REFUSED = ("InvalidAuthToken", "Unauthenticated")
#: Ray's own error where it is to send a token and has none.
_LACKING = "AuthenticationError"
#: Ends well where a head answers a call without a token.
_CALL = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1])"
_CALL_SECONDS = 60
_ASK = "`ray get-auth-token` on the cluster's head tells it"


@dataclass
class Held:
    """What was written to standard error for a time."""

    text: str = ""


@contextmanager
def standard_error_held() -> Iterator[Held]:
    """Keep what is written to standard error meanwhile, by code that is not Python's too."""
    held = Held()
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield held
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            held.text = file.read().decode("utf-8", "replace")


def token_trouble(address: str, error: Exception, printed: str) -> str | None:
    """Why no connection came about and what to do, where it is for a token; else None."""
    refused = any(mark in f"{printed}{error}" for mark in _REFUSED)
    lacking = not refused and type(error).__name__ == _LACKING
    if not refused and not lacking:
        return None
    mode = os.environ.get("RAY_AUTH_MODE", "")
    place = _place()
    if not sends_token():
        now = f"RAY_AUTH_MODE is {mode} here" if mode else "RAY_AUTH_MODE is not set here"
        have = f"the token in {place}" if place else f"its token in ~/.ray/auth_token ({_ASK})"
        what = f"it asks for a token and none was sent, since {now}"
        remedy = f"run the same command with RAY_AUTH_MODE=token and {have}"
    elif lacking:
        what = "RAY_AUTH_MODE is token here, and there is no token to send"
        remedy = (
            f"put the cluster's into ~/.ray/auth_token or RAY_AUTH_TOKEN ({_ASK}), or set "
            "RAY_AUTH_MODE=disabled for a cluster that asks for none"
        )
    else:
        what = f"it has another token than the one in {place or '~/.ray/auth_token'}"
        remedy = f"put the cluster's there ({_ASK})"
    return f"Ray {address}: {what}: {remedy}"


def sends_token() -> bool:
    """Whether this process sends a token; for `auto` Ray sets the mode where it finds one."""
    return os.environ.get("RAY_AUTH_MODE", "").lower() == "token"


def needless_token(address: str, head: str) -> str | None:
    """Why tasks would get no answer and what to do, where the cluster asks for no token; else None.

    Args:
        address: as the user named the cluster.
        head: host and port of its head.
    """
    # Another process, since this one has decided: Ray reads the mode once.
    done = subprocess.run(
        [sys.executable, "-c", _CALL, head],
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        timeout=_CALL_SECONDS,
        check=False,
    )
    if done.returncode:
        return None
    return (
        f"Ray {address}: it asks for no token, and this side sends that in {_place()}, so that "
        "tasks would get no answer: run the same command with RAY_AUTH_MODE=disabled, or start the "
        "nodes with RAY_AUTH_MODE=token"
    )


def _place() -> str:
    """Where this process has a token, as Ray looks for it; "" for nowhere."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if path:
        return path
    return "~/.ray/auth_token" if (Path.home() / ".ray" / "auth_token").is_file() else ""
