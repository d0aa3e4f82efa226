"""The user's secret key, of pseudonyms and of the hashes of groups; it is written nowhere."""

import os

from mmdata.errors import UserError
from pipelines.conversion.options import SplitOptions

KEY_VARIABLE = "MMDATA_PSEUDONYM_KEY"
_LEAST_KEY_BYTES = 16


def read_key(options: SplitOptions) -> bytes | None:
    """The key in --pseudonym-key, else in the environment; None without one.

    Raises:
        UserError: it cannot be read, or is too short to be one.
    """
    if options.pseudonym_key is not None:
        where = f"--pseudonym-key {options.pseudonym_key}"
        try:
            with open(options.pseudonym_key, "rb") as file:
                key = file.read().strip()
        except OSError as error:
            raise UserError(f"{where}: cannot be read: {error.strerror}") from None
    else:
        where = f"${KEY_VARIABLE}"
        key = os.environ.get(KEY_VARIABLE, "").strip().encode()
        if not key:
            return None
    if len(key) < _LEAST_KEY_BYTES:
        raise UserError(f"{where}: expected at least {_LEAST_KEY_BYTES} bytes, got {len(key)}")
    return key


def needed_key(options: SplitOptions) -> bytes:
    """The key, where nothing can be done without.

    Raises:
        UserError: there is none, or it is none.
    """
    key = read_key(options)
    if key is None:
        raise UserError(
            f"--pseudonymise: needs a secret key, in --pseudonym-key FILE or in ${KEY_VARIABLE}; "
            "openssl rand -hex 32 makes one. Keep it: the same key gives the same pseudonyms"
        )
    return key
