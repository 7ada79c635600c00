"""Forwarding connections to a server behind this one."""
