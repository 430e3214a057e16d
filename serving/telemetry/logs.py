"""JSON log lines with Cloud Logging's field names; the standard library's loggers speak the same language."""

import logging
import sys
from typing import Any, Final, Literal

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
    if form == "json":
        shared += [structlog.processors.format_exc_info, _cloud_fields]
        structlog.configure(
            processors=[*shared, _to_json_bytes],
            wrapper_class=structlog.make_filtering_bound_logger(number),
            logger_factory=structlog.BytesLoggerFactory(),
            cache_logger_on_first_use=True,
        )
        last: Processor = _to_json_text
    else:
        last = structlog.dev.ConsoleRenderer()
        structlog.configure(
            processors=[*shared, last],
            wrapper_class=structlog.make_filtering_bound_logger(number),
            logger_factory=structlog.WriteLoggerFactory(),
            cache_logger_on_first_use=True,
        )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_logger_name, structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    # libraries speak up when something is wrong, not at every request they make
    root.setLevel(max(number, logging.WARNING))
    for name in ("serving", "uvicorn"):
        logging.getLogger(name).setLevel(number)


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
    return repr(value)
