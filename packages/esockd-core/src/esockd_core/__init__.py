"""The socket-listener layer for anyio programs: admission, limits, drain, live statistics."""
