"""Ordered allow/deny rules for IP addresses: first match wins, live changes, any size."""
