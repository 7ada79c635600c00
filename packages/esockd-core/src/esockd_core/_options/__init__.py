"""The options of a listener."""
