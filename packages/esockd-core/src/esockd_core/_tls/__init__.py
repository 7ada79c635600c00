"""TLS without I/O."""
