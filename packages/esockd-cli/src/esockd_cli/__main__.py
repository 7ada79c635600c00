"""`python -m esockd_cli` is the command `esockd`."""

from esockd_cli._main import main

main()
