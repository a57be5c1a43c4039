"""Keeping passwords and tokens out of messages and logs."""

import os
import re
from collections.abc import Iterator

STARS = "****"

# What stands before the host of an address. A password that is not quoted may hold "/" and "@".
_CREDENTIALS = re.compile(r"(?<=://)[^\s'\"<>]*(?=@)")
_SHORTEST = 4  # letters; a shorter piece stands in words that are no secret


def without_secrets(text: str, token: str | None = None) -> str:
    """Return what another program said, with stars in place of passwords and tokens.

    Stars replace what stands before the ``@`` of an address; the passwords of addresses in the
    environment, such as those of a package index or a proxy; and the token. Programs that
    misunderstand an address quote pieces of its password, so pieces are replaced too.

    Parameters
    ----------
    text
        A message that may quote addresses or headers.
    token
        A further secret.
    """
    text = _CREDENTIALS.sub(STARS, text)
    secrets = {*_passwords_of_environment(), *([token] if token else [])}
    for secret in sorted(secrets, key=lambda secret: (-len(secret), secret)):
        text = text.replace(secret, STARS)
    return text


def _passwords_of_environment() -> Iterator[str]:
    for value in os.environ.values():
        for credentials in _CREDENTIALS.findall(value):
            user, colon, password = credentials.partition(":")
            # Some indices take a token alone.
            secret = password if colon else user
            pieces = (secret, *re.split(r"[:/?#@]", secret))
            yield from (piece for piece in pieces if len(piece) >= _SHORTEST)
