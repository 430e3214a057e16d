"""JSON log lines with Cloud Logging's field names; the standard library's loggers speak the same language."""

import logging
import sys
import threading
import warnings
from collections import Counter
from io import StringIO
from types import TracebackType
from typing import Any, Final, Literal, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

SEVERITIES: Final = {
    "debug": "DEBUG",
    "info": "INFO",
    "warning": "WARNING",
    "error": "ERROR",
    "exception": "ERROR",
    "critical": "CRITICAL",
}

_TRACE: Final = "logging.googleapis.com/trace"
_SPAN: Final = "logging.googleapis.com/spanId"
_SAMPLED: Final = "logging.googleapis.com/trace_sampled"


MOST_CHARACTERS: Final = 8_000
"""Of one value in a log line, a traceback included: its beginning and its end are kept."""


def configure_logging(level: str = "INFO", form: Literal["json", "console"] = "json") -> None:
    """Send this process's log lines, ours and the libraries', to standard output as one JSON object each.

    Args:
        level: the lowest severity that is written.
        form: `console` for people at a terminal.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
    ]
    _hear_everything()
    if form == "json":
        shared += [structlog.processors.format_exc_info, _cut, _cloud_fields]
        structlog.configure(
            processors=[*shared, _to_json_bytes],
            wrapper_class=structlog.make_filtering_bound_logger(number),
            logger_factory=structlog.BytesLoggerFactory(),
            cache_logger_on_first_use=True,
        )
        last: Processor = _to_json_text
    else:
        shared.append(_cut)
        last = _console()
        structlog.configure(
            processors=[*shared, last],
            wrapper_class=structlog.make_filtering_bound_logger(number),
            logger_factory=structlog.WriteLoggerFactory(),
            cache_logger_on_first_use=True,
        )
    handler = _Lines(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_logger_name, structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    handler.addFilter(_Seldom())
    # libraries speak up when something is wrong, not at every request they make
    root.setLevel(max(number, logging.WARNING))
    # a warning printed between the lines would be no JSON
    logging.captureWarnings(True)
    for name in ("serving", "uvicorn"):
        logging.getLogger(name).setLevel(number)


class _Lines(logging.StreamHandler[TextIO]):
    """Lines for whoever reads them: the service goes on when nobody does any more, or their disk is full."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """Say nothing of a line that cannot be written: the standard library would print a traceback for each."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def be_plain_unconfigured() -> None:
    """Until `configure_logging` is called: tracebacks without the values of variables.

    structlog's default renders those where rich is installed: half a minute and megabytes for one error in a server,
    secrets among them.
    """
    if not structlog.is_configured():
        defaults: list[Processor] = [
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            _cut,
            _console(),
        ]
        structlog.configure(processors=defaults)


def _console() -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(exception_formatter=_plain_traceback)


def _plain_traceback(out: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    text = StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    out.write(_short(text.getvalue()))


def _hear_everything() -> None:
    """What Python itself would write to standard error becomes log lines; Pillow's warnings say nothing new."""
    logging.captureWarnings(True)
    # each is told once a place, and the odd metadata of a client's image is no news to us
    warnings.filterwarnings("ignore", module=r"PIL\b")
    log = logging.getLogger("serving.unhandled")

    def unhandled(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        log.error("unhandled error", exc_info=(kind, error or kind(), trace))

    sys.excepthook = unhandled
    threading.excepthook = lambda args: unhandled(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: unhandled(args.exc_type, args.exc_value, args.exc_traceback)


class _Seldom(logging.Filter):
    """Lets `MOST` lines of one library a `WINDOW_S` through: what a client can provoke must not fill a disk."""

    MOST: Final = 20
    WINDOW_S: Final = 10.0

    def __init__(self) -> None:
        super().__init__()
        self._since = 0.0
        self._seen: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this line is written."""
        if record.name.partition(".")[0] == "serving":
            return True
        if record.created - self._since >= self.WINDOW_S:
            self._since = record.created
            self._seen.clear()
        self._seen[record.name] += 1
        return self._seen[record.name] <= self.MOST


def _cut(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name, value in event.items():
        if isinstance(value, str) and len(value) > MOST_CHARACTERS:
            event[name] = _short(value)
    return event


def _short(text: str) -> str:
    if len(text) <= MOST_CHARACTERS:
        return text
    half = MOST_CHARACTERS // 2
    return f"{text[:half]}\n... {len(text) - 2 * half:,} characters ...\n{text[-half:]}"


def trace_fields(traceparent: str | None, cloud_trace: str | None, project: str) -> dict[str, Any]:
    """Cloud Logging's trace fields from the W3C `traceparent` or Google's `X-Cloud-Trace-Context`; {} if neither fits.

    Args:
        traceparent: `00-<32 hex>-<16 hex>-<2 hex>`.
        cloud_trace: `<32 hex>/<decimal span>;o=1`.
        project: Google Cloud project; without one the bare trace id stands.
    """
    if traceparent:
        parts = traceparent.split("-")
        if len(parts) >= 4 and _is_id(parts[1], 32) and _is_id(parts[2], 16) and _is_hex(parts[3], 2):
            return _trace(parts[1], parts[2], bool(int(parts[3], 16) & 1), project)
    if cloud_trace:
        trace, _, rest = cloud_trace.partition("/")
        span, _, options = rest.partition(";")
        if _is_id(trace, 32) and span.isascii() and span.isdigit() and len(span) <= 20:
            return _trace(trace, f"{int(span) & (2**64 - 1):016x}", "o=1" in options, project)
    return {}


def _trace(trace: str, span: str, sampled: bool, project: str) -> dict[str, Any]:
    name = f"projects/{project}/traces/{trace}" if project else trace
    return {_TRACE: name, _SPAN: span, _SAMPLED: sampled}


def _is_id(text: str, digits: int) -> bool:
    # W3C: an id of zeros alone is none
    return _is_hex(text, digits) and text != "0" * digits


def _is_hex(text: str, digits: int) -> bool:
    return len(text) == digits and all(c in "0123456789abcdef" for c in text)


def _cloud_fields(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event["severity"] = SEVERITIES.get(event.pop("level", method), "DEFAULT")
    event["message"] = event.pop("event", "")
    # uvicorn adds a coloured copy of its message
    event.pop("color_message", None)
    if "exception" in event:
        # Error Reporting groups by this field
        event["stack_trace"] = event.pop("exception")
    return event


def _logger_name(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    record: logging.LogRecord | None = event.get("_record")
    if record is not None:
        event["logger"] = record.name
    return event


def _to_json_bytes(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
    return orjson.dumps(event, default=_describe, option=orjson.OPT_NON_STR_KEYS)


def _to_json_text(logger: WrappedLogger, method: str, event: EventDict) -> str:
    return _to_json_bytes(logger, method, event).decode()


def _describe(value: object) -> str:
    # content never reaches a log, not even by accident
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    return repr(value)[:MOST_CHARACTERS]


be_plain_unconfigured()
