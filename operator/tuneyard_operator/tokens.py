"""Who reports: a pod's projected service-account token, checked against the API server's public keys.

Checked here and not by a TokenReview a report: thousands of reports then cost the API server nothing. PyJWT does the
cryptography.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import jwt

from tuneyard_operator.render import TOKEN_AUDIENCE

_REFETCH_SECONDS: Final = 10.0
_ALGORITHMS: Final = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]


class Unauthorized(Exception):
    """The token does not tell who reports; the message is a sentence."""


class TokenVerifier:
    """Checks tokens; the keys are fetched when a token names one that is not known (they rotate)."""

    def __init__(self, fetch: Callable[[str], Awaitable[dict[str, Any]]]) -> None:
        self._fetch = fetch
        self._keys: dict[str, jwt.PyJWK] = {}
        self._issuer = ""
        self._fetched = -_REFETCH_SECONDS
        self._fetching = asyncio.Lock()

    async def pod_uid(self, token: str) -> str:
        """The uid of the pod that the token is bound to.

        Raises:
            Unauthorized: it is not one of this cluster's tokens for us, or is bound to no pod.
        """
        try:
            key = await self._key(jwt.get_unverified_header(token).get("kid", ""))
            claims = jwt.decode(
                token, key, algorithms=_ALGORITHMS, audience=TOKEN_AUDIENCE, issuer=self._issuer,
                options={"require": ["exp", "iss", "aud"]},
            )  # fmt: skip
            return str(claims["kubernetes.io"]["pod"]["uid"])
        except (jwt.PyJWTError, UnicodeError) as error:
            raise Unauthorized(f"the token is not valid: {error}") from error
        except (KeyError, TypeError) as error:
            raise Unauthorized("the token is not bound to a pod; mount it as a projected volume") from error

    async def _key(self, kid: str) -> jwt.PyJWK:
        async with self._fetching:  # all who come before the first answer wait for it
            if kid not in self._keys and time.monotonic() - self._fetched >= _REFETCH_SECONDS:
                self._fetched = time.monotonic()
                self._issuer = (await self._fetch("/.well-known/openid-configuration"))["issuer"]
                found = jwt.PyJWKSet.from_dict(await self._fetch("/openid/v1/jwks"))
                self._keys = {key.key_id: key for key in found.keys if key.key_id}
        try:
            return self._keys[kid]
        except KeyError:
            raise Unauthorized("the token was signed by a key that this cluster does not have") from None
