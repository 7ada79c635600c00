"""As much of HTTP/1.1 as a scraper and a probe need: one request of GET or HEAD, one answer, and the end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

MAX_HEAD_BYTES: Final = 8_192  # as most servers take
REQUEST: Final = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,2000}) HTTP/1\.[0-9](?:\r\n|\Z)")  # RFC 9112, section 3
PLAIN: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for.

    Attributes:
        path: Without the query.
        is_head: Whether only the head of the answer is wanted.
    """

    path: str
    is_head: bool


class BadRequest(Exception):  # noqa: N818 (an answer)
    """What cannot be answered.

    Attributes:
        status: Why.
    """

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


def read_request(head: bytes) -> Request:
    """Read the head of a request. Its fields change nothing here, so they are not looked at.

    Args:
        head: Up to its empty line, without the two line ends there.

    Raises:
        BadRequest: It is no request, or for something else than looking.
    """
    match = REQUEST.match(head)
    if match is None:
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    method, target = match[1], match[2].decode("ascii")
    if method not in (b"GET", b"HEAD"):
        raise BadRequest(HTTPStatus.METHOD_NOT_ALLOWED)
    return Request(target.partition("?")[0], method == b"HEAD")


def write_response(status: HTTPStatus, body: bytes, content_type: str = PLAIN, *, is_head: bool = False) -> bytes:
    """An answer after which the connection ends.

    Args:
        status: Its status.
        body: Its content.
        content_type: What that is.
        is_head: Whether the content is left out.
    """
    allow = "Allow: GET, HEAD\r\n" if status == HTTPStatus.METHOD_NOT_ALLOWED else ""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        f"{allow}Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + (b"" if is_head else body)


def write_error(status: HTTPStatus) -> bytes:
    """An answer that only has its status."""
    return write_response(status, f"{status.phrase}\n".encode())
