"""Accepting and connections on trio."""
