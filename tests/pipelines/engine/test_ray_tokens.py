"""What Ray says of a token is told in one line; what it says of other things is left alone."""

import os
import sys
from pathlib import Path

import pytest

from pipelines.engine.ray_tokens import standard_error_held, token_trouble

PRINTED = """\
[2026-11-30 17:27:07,769 W 9280 9280] gcs_client.cc:210: Failed to get cluster ID from GCS server: \
Unauthenticated: RPC error: InvalidAuthToken: Authentication token is missing or incorrect
"""
FAILED = ConnectionError("Failed to connect to Ray cluster at head:6379")


class AuthenticationError(Exception):
    """Named as Ray's, raised by it where it has no token to send."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_token_that_is_there_and_was_not_sent(home: Path) -> None:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("5f")
    assert token_trouble("head:6379", FAILED, PRINTED) == (
        "Ray head:6379: it asks for a token and none was sent, since RAY_AUTH_MODE is not set "
        "here: run the same command with RAY_AUTH_MODE=token and the token in ~/.ray/auth_token"
    )


def test_a_token_that_is_not_there_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert token_trouble("head:6379", FAILED, PRINTED) == (
        "Ray head:6379: it asks for a token and none was sent, since RAY_AUTH_MODE is disabled "
        "here: run the same command with RAY_AUTH_MODE=token and its token in ~/.ray/auth_token "
        "(`ray get-auth-token` on the cluster's head tells it)"
    )


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_another_token(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv(name, "/some/file")
    place = "RAY_AUTH_TOKEN" if name == "RAY_AUTH_TOKEN" else "/some/file"
    told = token_trouble("head:6379", FAILED, PRINTED)
    assert told is not None
    assert told.startswith(f"Ray head:6379: it has another token than the one in {place}: put")


def test_none_to_send_although_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    told = token_trouble("head:6379", AuthenticationError("no token"), "")
    assert told is not None
    assert "RAY_AUTH_MODE is token here, and there is no token to send: put" in told
    assert "\n" not in told


def test_a_connection_that_fails_for_something_else_is_not_put_down_to_tokens() -> None:
    assert token_trouble("head:6379", FAILED, "gcs_client.cc:210: Deadline Exceeded") is None


def test_what_is_written_below_python_is_held_and_then_no_more(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with standard_error_held() as held:
        os.write(2, b"from C\n")
        os.system("echo from a child >&2")
    os.write(2, b"afterwards\n")
    assert held.text == "from C\nfrom a child\n"
    assert capfd.readouterr().err == "afterwards\n"


def test_it_is_given_back_after_an_error() -> None:
    before = os.fstat(2).st_ino
    with pytest.raises(KeyboardInterrupt), standard_error_held():
        raise KeyboardInterrupt
    assert os.fstat(2).st_ino == before
    sys.stderr.flush()
