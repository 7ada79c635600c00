"""What each event loop adds: asyncio (uvloop included) and trio."""
