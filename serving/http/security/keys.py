"""API keys, held and compared as digests."""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

import structlog

from serving.platform.errors import SecurityConfigError

MIN_KEY_LENGTH: Final = 16
"""Shorter keys can be guessed; they work, with a warning."""


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The SHA-256 digests of the accepted keys."""

    digests: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, keys: str, *, required: bool) -> "KeyRing":
        """Read `API_KEYS`, a comma list.

        Raises:
            SecurityConfigError: keys are required and there is none.
        """
        found = [key.strip() for key in keys.split(",") if key.strip()]
        if required and not found:
            raise SecurityConfigError("REQUIRE_AUTH is set but API_KEYS is empty: set API_KEYS to a comma list of keys")
        if any(len(key) < MIN_KEY_LENGTH for key in found):
            structlog.get_logger("serving").warning(f"API_KEYS has a key shorter than {MIN_KEY_LENGTH} characters")
        return cls(tuple(hashlib.sha256(key.encode()).digest() for key in found))

    def __bool__(self) -> bool:
        return bool(self.digests)

    def identify(self, key: bytes) -> str | None:
        """A name for the holder of `key` that does not reveal it, or None if the key is not accepted.

        Takes the same time whichever key it is compared with and wherever they differ.
        """
        digest = hashlib.sha256(key).digest()
        found = False
        for known in self.digests:
            found |= hmac.compare_digest(digest, known)
        return digest.hex()[:12] if found else None
