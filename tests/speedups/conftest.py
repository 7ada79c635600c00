"""Tests of esockd_speedups alone. `make test` has no compiler and leaves them out; `make wheels` runs them."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("esockd_speedups") else ["test_*.py"]
