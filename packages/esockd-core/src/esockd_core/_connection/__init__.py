"""A connection: its public face, and what is the same on every event loop."""
