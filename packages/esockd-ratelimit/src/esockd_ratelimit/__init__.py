"""Exact token buckets: alone, keyed, composed and shared."""
