"""A pytest plugin that runs the Python examples of Markdown pages and docstrings.

Every ```python block of a page runs, from top to bottom, all blocks of one page in one namespace. A block that would
run for ever (a server) is preceded by `<!-- skip: next -->`, and a test in tests/integration starts it as a program
and talks to it.
"""

from __future__ import annotations

from pathlib import Path

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser

_root = str(Path(__file__).resolve().parent.parent)
_pages = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()], path=_root, patterns=["*.md"])
_docstrings = Sybil(parsers=[DocTestParser()], path=_root, patterns=["*.py"])

pytest_collect_file = (_pages + _docstrings).pytest()
