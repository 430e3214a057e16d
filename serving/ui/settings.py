"""Where the API is and which key opens it, from the environment."""

import os
from dataclasses import dataclass, field
from typing import Final

DEFAULT_API_URL: Final = "http://127.0.0.1:8080"


@dataclass(frozen=True, slots=True)
class UiSettings:
    """What the operator of the interface chose."""

    api_url: str = DEFAULT_API_URL
    api_key: str = field(default="", repr=False)
    """Sent for everyone who gives no key of their own; never sent to a browser."""


def read_settings() -> UiSettings:
    """`API_URL` and `API_KEY`."""
    url = os.environ.get("API_URL", "").strip() or DEFAULT_API_URL
    return UiSettings(url.rstrip("/"), os.environ.get("API_KEY", "").strip())
