"""Why an address gave no photo: stable codes for programs, a sentence for people."""

from typing import Final

from serving.platform.errors import FetchRefusedError

REASONS: Final[dict[str, str]] = {
    "url_invalid": "not an http or https address with a host",
    "address_refused": "leads to a private, link-local or otherwise internal address",
    "host_refused": "its host is not on the list of allowed hosts",
    "unresolvable": "its host has no address",
    "unreachable": "no connection could be made",
    "tls_failed": "its certificate or encryption was not accepted",
    "timeout": "no whole answer within the time allowed",
    "too_many_redirects": "redirected too often",
    "redirect_invalid": "redirected to something that is no http or https address",
    "not_found": "there is nothing (404 or 410)",
    "forbidden": "access was refused (401, 403, 407 or 451)",
    "rate_limited": "the host asks to wait longer than this job waits (429)",
    "unavailable": "the host cannot answer now (503)",
    "server_error": "the host answered with an error of its own",
    "status_refused": "the host answered with another status than 200",
    "encoding_refused": "the answer is compressed in transit, which was not asked for",
    "too_large": "the file is larger than the limit",
    "incomplete": "the answer ended before its end",
    "protocol_error": "the answer is not valid HTTP",
    "empty": "the answer has no content",
}
"""Reason -> what it means; what a row's `refused_reason` or a problem's `reason` can be for a fetched photo."""


def refusal(reason: str, detail: str = "") -> FetchRefusedError:
    """The error of an address that gave no photo.

    Args:
        reason: a key of `REASONS`.
        detail: numbers or names that belong to it; bounded and printable, never a part of the answer's body.
    """
    return FetchRefusedError(reason, f"{REASONS[reason]}{f': {detail}' if detail else ''}")
