"""Listeners from their opening to the end of their last connection."""
