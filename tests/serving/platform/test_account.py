"""An account of which the system knows the number only, as where Kubernetes chooses it."""

import os
import pwd
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

from serving.platform.account import home, user_name


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> NoReturn:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", refuse)


@pytest.mark.usefixtures("unknown")
def test_an_account_without_an_entry_has_a_number_and_a_folder() -> None:
    assert user_name() == f"uid {os.getuid()}"
    assert home() == Path(tempfile.gettempdir())


def test_what_the_environment_says_holds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (user_name(), home()) == ("ada", tmp_path)
