"""Tasks of the repository, each a script."""
