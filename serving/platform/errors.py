"""The errors a user meets, all of them: each text is one line that names the problem and the fix.

The command line and the reader of a stage's log know "ours" by the base, or in a log by this module's name; what is
neither an `AidetectError` nor an `OSError` is a defect and is shown with its type.
"""

import errno
import os
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

Refusal = Literal[
    "empty", "unsupported_type", "corrupt", "too_many_pixels", "too_small", "file_too_large", "decode_timeout"
]
"""Why bytes are not an acceptable image: stable, for programs."""

_LONGEST: Final = 400
_FIXES: Final = {
    errno.ENOENT: "check the path",
    errno.EACCES: "you may not; check its owner and rights",
    errno.EROFS: "choose a place that can be written",
    errno.ENOSPC: "make room or choose another disk",
    errno.EDQUOT: "make room or choose another disk",
    errno.EMFILE: "raise the limit, e.g. ulimit -n 4096",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EISDIR: "name a file in it",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EEXIST: "remove it or choose another place",
}
_NUMBER: Final = re.compile(r"\[Errno -?\d+\] ")
_SYSTEM: Final = re.compile(r"[\w.]*(?:Error|Exception): \[Errno (?P<number>\d+)\] [^']*(?:'(?P<place>[^']+)')?")
_PLAIN: Final = {
    "model_type": "names with values are wanted here: {name: value}",
    "model_attributes_type": "names with values are wanted here: {name: value}",
    "dict_type": "names with values are wanted here: {name: value}",
    "list_type": "a list is wanted here: [a, b]",
    "tuple_type": "a list is wanted here: [a, b]",
    "set_type": "a list is wanted here: [a, b]",
    "frozen_set_type": "a list is wanted here: [a, b]",
    "bool_type": "true or false is wanted here",
    "bool_parsing": "true or false is wanted here",
    "string_type": "a text is wanted here; put it in quotes",
    "invalid_key": "names are texts; put it in quotes",
}
"""What a schema says in the words of Python, or by the name of a class, in the words of who wrote the value."""
_FULL: Final = re.compile(r"\b(?:No space left on device|database or disk is full)\b")
"""A full disk in the words of the system, and so of C++ and Rust, and of SQLite."""


class AidetectError(Exception):
    """An expected failure. The text is one line: what is wrong, where, and what to do."""


# the detector, and where it comes from


class ImageRefusedError(AidetectError):
    """Bytes that are not an acceptable image; no text of a library stands in the message.

    `serving.detector.image.REASONS` has what each reason means, for engineers and for the photo's owner.
    """

    def __init__(self, reason: Refusal, message: str) -> None:
        super().__init__(message)
        self.reason: Refusal = reason


class BundleError(AidetectError):
    """A bundle that must not be served; names the file or the numbers."""


class UnknownLabelError(AidetectError):
    """A class name that is none of the known names or aliases."""


class ModelNotFoundError(AidetectError):
    """A model URI that resolves to nothing; says what was looked for and where."""


class RegistryMissingError(ModelNotFoundError):
    """The registry itself was never made: nothing has been registered on this machine yet."""


class TrustListError(AidetectError):
    """A list of trusted C2PA signers that cannot be used; names the file."""


# the server and its clients


class StartError(AidetectError):
    """The server cannot start."""


class SecurityConfigError(StartError):
    """Settings under which the server must not start; names the variable."""


class NotReadyError(AidetectError):
    """No model is loaded yet; ask again."""


class UnknownPredictionError(AidetectError):
    """No prediction with this request id is remembered."""


class SignInError(AidetectError):
    """Who calls a service of ours on Google Cloud cannot be shown or is not believed; names the login or the grant."""


# the stages


class StageError(AidetectError):
    """An expected failure of a stage."""


class StoppedError(StageError):
    """A stage was told to stop, by SIGTERM."""


class StateError(StageError):
    """A record that is kept from run to run, or by the server, cannot be read or written; names the place."""


class AnswerNotSharedError(StateError):
    """A label that comes before its answer is known to all instances; it may be sent again."""


class SmokeError(StageError):
    """The version must not serve; says what it answered."""


class OtherVersionError(SmokeError):
    """Another version than the expected one answers: wrong, or not yet true where traffic was moved a moment ago."""


class NotAnsweringError(AidetectError):
    """No answer, or one that says to come back: worth asking again until the time is up."""


# a catalogue: what can stop its scoring as a whole; a single photo never does


class CatalogueError(StageError):
    """The job cannot begin or go on; what was committed stays."""


class SourceError(CatalogueError):
    """The source of a catalogue cannot be read."""


class FetchRefusedError(AidetectError):
    """An address that gave no photo; `reason` is a key of `serving.fetch.REASONS`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


# the pipeline and the command line


class ConfigError(AidetectError):
    """A configuration that cannot be used; names the key and what is wrong with it."""


class InitError(AidetectError):
    """A name that Google Cloud or GitHub would refuse, or a file that is not this project's."""


class BootstrapError(AidetectError):
    """What a new project lacks cannot be looked at or made; names the command and what it said."""


class CompileError(AidetectError):
    """A spec that must not be written or submitted."""


class PreflightError(AidetectError):
    """A cloud run that would be refused or wasted; has every problem found."""


class CostError(AidetectError):
    """No price is known for what the configuration asks for; says what is known."""


class RunError(AidetectError):
    """A run that is not there, or of which that cannot be asked."""


class ScheduleError(AidetectError):
    """A schedule that cannot be made as configured."""


class RetrainError(AidetectError):
    """Retraining cannot be decided or started."""


# what the errors of others say


def system_error(error: OSError) -> str:
    """What the system says of a file, and what to do: `no such file or directory; check the path`."""
    said, fix = error.strerror or str(error), _FIXES.get(error.errno or 0, "")
    return f"{said[:1].lower()}{said[1:]}" + (f"; {fix}" if fix else "")


def system_line(line: str) -> str:
    """The last line of another process's traceback, told as `system_error` tells it where the system refused a file.

    `OSError: [Errno 28] No space left on device: 'a'` gives `a: no space left on device; make room or choose another
    disk`, and so does a full disk in the words of a library; of any other line only the system's number goes.
    """
    found = _SYSTEM.match(line)
    number = errno.ENOSPC if _FULL.search(line) else int(found["number"]) if found else 0
    if number not in _FIXES:
        return _NUMBER.sub("", line)
    place = found["place"] if found and found["place"] else ""
    return f"{place}: {system_error(OSError(number, os.strerror(number)))}".removeprefix(": ")


def plain(problem: Mapping[str, Any]) -> str:
    """What a schema finds wrong with a value: one entry of a `ValidationError`'s errors, without names of classes."""
    said: str = problem["msg"]
    if not said.endswith(("an object", "a valid array")):  # of a text in JSON it speaks in JSON's words already
        said = _PLAIN.get(problem["type"], said)
    return said.removeprefix("Value error, ")


def one_line(error: BaseException) -> str:
    """The first line of what any error says, at most 400 characters; of a `ValidationError` its first problem.

    `gate.max_fpr: Input should be less than or equal to 1`. An error without a text gives the name of its type.
    """
    from pydantic import ValidationError  # the command line's help knows errors too, and must be quick

    if isinstance(error, ValidationError):
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))
        return f"{place}: {plain(problem)}" if place else plain(problem)
    # the system's number of an error says nothing to who reads it
    line = _NUMBER.sub("", " ".join(str(error).strip().partition("\n")[0].split()))
    return (line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…") or type(error).__name__
