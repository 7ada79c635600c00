"""Inspecting and changing a listener."""
