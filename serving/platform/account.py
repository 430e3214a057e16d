"""Whose process this is, also where the system knows no more of the account than its number, as in some containers."""

import getpass
import os
import tempfile
from pathlib import Path


def user_name() -> str:
    """Name of the account: of the environment or the system; `uid N` where neither knows one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the second from Python 3.13 on
        return f"uid {os.getuid()}"


def home() -> Path:
    """Folder of the account; that for temporary files where it has none."""
    try:
        return Path.home()
    except (KeyError, RuntimeError):
        return Path(tempfile.gettempdir())
