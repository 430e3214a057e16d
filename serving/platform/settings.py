"""What this process tells its libraries through the environment, before the first of them loads: to keep to themselves.

Importing any of our three packages tells them, so that it holds for the command line, the server, a stage under KFP, a
notebook and whoever uses the detector as a library. What does not start with our code is told by the Makefile and the
Dockerfile, in the same words.
"""

import os
import re
import stat
from pathlib import Path
from types import MappingProxyType
from typing import Final

from serving.platform.errors import StartError, one_line

_SETTINGS_BYTES: Final = 64 * 1024

QUIET: Final = MappingProxyType(
    {
        "DO_NOT_TRACK": "true",
        "DVC_NO_ANALYTICS": "true",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # a device's number and a queue under the home folder, and its collector's name asked of the DNS
        "ORT_DISABLE_TELEMETRY": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
    }
)
"""Switches of telemetry, by the variable that each library reads."""


def quieten_libraries() -> None:
    """Switch off what libraries report or write about their use; a variable that is set already stays as it is.

    Matplotlib's list of fonts goes into the folder of temporary files instead of the home folder, and MLflow does not
    tell of each table that it makes.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    if "MPLCONFIGDIR" not in os.environ and (folder := _own_temporary_folder()):
        os.environ["MPLCONFIGDIR"] = str(folder)


def read_settings_file() -> None:
    """Take the settings in the file that SETTINGS_FILE names, where the environment does not have them itself.

    One `NAME=value` a line; empty lines and those that begin with # say nothing. A deployment changes the environment
    of a service; what whoever owns the service says beside it stands in this file, so that neither undoes the other.

    Raises:
        StartError: it cannot be read, or is another file.
    """
    name = os.environ.get("SETTINGS_FILE", "")
    if not name:
        return
    try:
        with Path(name).open("rb") as file:
            content = file.read(_SETTINGS_BYTES + 1)
        if len(content) > _SETTINGS_BYTES:
            raise StartError(
                f"SETTINGS_FILE {name}: more than {_SETTINGS_BYTES:,} bytes; give a file of NAME=value lines"
            )
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"SETTINGS_FILE {name}: {one_line(error)}; give a file of NAME=value lines") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = re.fullmatch(r"([A-Z][A-Z0-9_]*)=([^\0]*)", line)
        if found is None:
            raise StartError(f"SETTINGS_FILE {name}, line {number}: write NAME=value, the name in capitals")
        os.environ.setdefault(found[1], found[2])


def pin_numerical_threads() -> None:
    """One thread per call in every numerical library, before any of them loads: slots are the parallelism here."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    # a bar of MLflow's between the log lines would be no JSON
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def _own_temporary_folder() -> Path | None:
    """A folder that stays for the next process; nothing where somebody else made it, as settings are read from it."""
    folder = Path(os.environ.get("TMPDIR") or "/tmp") / f"aidetect-matplotlib-{os.getuid()}"  # noqa: S108 - see above
    try:
        found = folder.lstat()
    except OSError:
        return folder
    return folder if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() else None


def of_google_clients() -> tuple[str, ...]:
    """What decides where Google's storage client calls and as whom: two clients with the same are one."""
    names = ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT")
    return tuple(os.environ.get(name, "") for name in names)
