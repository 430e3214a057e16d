"""SETTINGS_FILE: what stands beside the environment of a service, and gives way to it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.platform.errors import StartError
from serving.platform.settings import read_settings_file


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "settings.env"
    monkeypatch.setenv("SETTINGS_FILE", str(path))
    monkeypatch.setenv("MODEL_URI", "gs://bucket/of-the-deployment")
    monkeypatch.delenv("RATE_LIMIT_PREDICT", raising=False)
    yield path
    os.environ.pop("RATE_LIMIT_PREDICT", None)


def test_it_fills_in_what_the_environment_leaves_out(file: Path) -> None:
    file.write_text("# settings\n\nMODEL_URI=gs://bucket/old\nRATE_LIMIT_PREDICT=60/minute = a lot\n")
    read_settings_file()
    assert os.environ["RATE_LIMIT_PREDICT"] == "60/minute = a lot"
    assert os.environ["MODEL_URI"] == "gs://bucket/of-the-deployment"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"rate_limit=1\n", "line 1: write NAME=value"),
        (b"\n\xff\n", "give a file of NAME=value lines"),
        (b"#" * 70_000, "more than 65,536 bytes"),
        (None, "No such file"),
    ],
    ids=["lower case", "bytes", "too large", "missing"],
)
def test_another_file_stops_the_start_in_one_line(file: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StartError) as error:
        read_settings_file()
    assert words in str(error.value) and "\n" not in str(error.value)
