"""Keyed hashes of ids: the first 128 bits of an HMAC-SHA256.

The same name and key give the same hash in every run; without the key it cannot be told whose it
is. The public key stands in where no secret one was given: its hashes compare as well, but whoever
can guess an id can test the guess, so they keep nothing secret.
"""

import hashlib
import hmac

_HEX_DIGITS = 32
PUBLIC_KEY = b"mmdata: no key was given"
PUBLIC_KEY_ID = "public"
_ID_OF = "\0mmdata pseudonym check"


def keyed_hash(key: bytes, name: str) -> str:
    """The hash of an id or name, in hexadecimal."""
    data = name.encode("utf-8", "surrogatepass")
    return hmac.new(key, data, hashlib.sha256).hexdigest()[:_HEX_DIGITS]


def key_id(key: bytes) -> str:
    """Tells one key from another, and nothing of either; the public key's is `public`."""
    return PUBLIC_KEY_ID if key == PUBLIC_KEY else keyed_hash(key, _ID_OF)
