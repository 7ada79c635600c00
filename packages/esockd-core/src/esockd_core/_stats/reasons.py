"""Shutdown reasons: the words under which the end of an admitted connection is counted."""

from __future__ import annotations

from typing import Final

NORMAL: Final = "normal"
HANDLER_ERROR: Final = "handler_error"
ABORTED: Final = "aborted"
RESET: Final = "reset"
CUT_SHORT: Final = "cut_short"  # by the peer, in the middle of a message
MESSAGE_TOO_LONG: Final = "message_too_long"
IDLE_TIMEOUT: Final = "idle_timeout"
RECEIVE_TIMEOUT: Final = "receive_timeout"
SEND_TIMEOUT: Final = "send_timeout"
MAX_AGE: Final = "max_age"
SHUTDOWN: Final = "shutdown"
KILLED: Final = "killed"
STUCK: Final = "stuck"
REPLACED: Final = "replaced"  # by a new session of the same peer
SLOW_MEMBER: Final = "slow_member"  # of a ConnectionGroup
WORKER_LOST: Final = "worker_lost"  # with its worker process, which was killed or has crashed

PROXY_CLOSED: Final = "proxy_closed"  # without a byte: a port check
PROXY_INVALID: Final = "proxy_invalid"
PROXY_TIMEOUT: Final = "proxy_timeout"
SOURCE_FORBIDDEN: Final = "source_forbidden"
SOURCE_MAX_LIMIT: Final = "source_max_limit"
SOURCE_RATE_LIMITED: Final = "source_rate_limited"
TLS_CLOSED: Final = "tls_closed"  # without a byte: a port check
TLS_FAILED: Final = "tls_failed"
HANDSHAKE_TIMEOUT: Final = "handshake_timeout"

UPSTREAM_FAILED: Final = "upstream_failed"
HALF_CLOSED_TIMEOUT: Final = "half_closed_timeout"

PORT_CHECKS: Final = frozenset({PROXY_CLOSED, TLS_CLOSED})
ENTRANCE_FAILURES: Final = (PROXY_INVALID, PROXY_TIMEOUT, TLS_FAILED, HANDSHAKE_TIMEOUT)
SOURCE_REFUSALS: Final = frozenset({SOURCE_FORBIDDEN, SOURCE_MAX_LIMIT, SOURCE_RATE_LIMITED})

OWN_REASONS: Final = frozenset(
    {
        NORMAL, HANDLER_ERROR, ABORTED, RESET, CUT_SHORT, MESSAGE_TOO_LONG, IDLE_TIMEOUT, RECEIVE_TIMEOUT,
        SEND_TIMEOUT, MAX_AGE, SHUTDOWN, KILLED, STUCK, REPLACED, SLOW_MEMBER, WORKER_LOST, UPSTREAM_FAILED,
        HALF_CLOSED_TIMEOUT,
        *(f"upstream_{reason}" for reason in (RESET, ABORTED, SEND_TIMEOUT, NORMAL)),
        *PORT_CHECKS, *ENTRANCE_FAILURES, *SOURCE_REFUSALS,
    }
)  # fmt: skip
"""The reasons of this package. However many reasons handlers invent, these keep their own counters."""
