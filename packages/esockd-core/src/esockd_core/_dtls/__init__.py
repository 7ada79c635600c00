"""DTLS 1.2 without I/O."""
