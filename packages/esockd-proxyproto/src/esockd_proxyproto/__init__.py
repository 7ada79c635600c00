"""The PROXY protocol, versions 1 and 2: a strict, complete, sans-IO codec."""
