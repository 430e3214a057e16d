"""The `aidetect` command line: verbs only; every heavy import waits until its verb is called."""

import codecs
import io
import sys


def main() -> None:
    """Entry point of `aidetect`: run a verb; an error is one line on standard error, never a traceback."""
    from pipelines.cli.app import run_app

    codecs.register_error("aidetect", _written)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="aidetect")
    sys.exit(run_app(sys.argv[1:]))


def _written(error: UnicodeError) -> tuple[str | bytes, int]:
    """What a terminal or pipe without such a sign is given: JSON's escape of it; a file name's bytes as they are."""
    assert isinstance(error, UnicodeEncodeError)
    number = ord(error.object[error.start])
    if 0xDC80 <= number <= 0xDCFF:
        return bytes([number - 0xDC00]), error.start + 1
    if number > 0xFFFF:
        high, low = divmod(number - 0x10000, 0x400)
        return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}", error.start + 1
    return f"\\u{number:04x}", error.start + 1


__all__ = ["main"]
