"""The esockd command: run and inspect hardened socket listeners."""
