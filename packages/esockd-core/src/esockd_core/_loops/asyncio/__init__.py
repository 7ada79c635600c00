"""Accepting and connections on asyncio and uvloop."""
