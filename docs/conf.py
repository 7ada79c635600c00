"""How Sphinx makes the site (`make docs`) from the pages of the repository, which read as well without it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

project = "esockd"
author = "the esockd authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/**.md",
    "packages/*/README.md",
    "packages/*/CHANGELOG.md",
    "benchmarks/README.md",
    "benchmarks/results/*.md",
    "examples/README.md",
]
# The order of the pages in the margin of the site.
CHAPTERS = {
    "Start": ["docs/tutorial", "docs/index", "packages/esockd-cli/README", "packages/esockd-core/README"],
    "Recipes": [
        f"docs/recipes/{name}"
        for name in (
            "README",
            "fastapi",
            "asyncio",
            "trio",
            "threads",
            "load-balancer",
            "live-rules",
            "limits",
            "certificates",
            "zero-downtime",
        )
    ],
    "Operate": [
        "docs/configuration",
        "docs/workers",
        "docs/metrics",
        "docs/service",
        "docs/more-than-one-machine",
        "docs/doctor",
        "docs/bench",
        "docs/options",
    ],
    "Build": ["examples/README", "docs/testing", "docs/testing-with-pytest"],
    "Small packages": [f"packages/esockd-{name}/README" for name in ("cidr", "proxyproto", "ratelimit", "speedups")],
    "Reference": [f"docs/reference/{name}" for name in ("command", "core", "cidr", "proxyproto", "ratelimit")],
    "Coming from": [f"docs/coming-from-{name}" for name in ("esockd", "asyncio", "anyio", "gunicorn")],
    "Design": [
        "docs/path-of-a-connection",
        "docs/design/admission",
        "docs/design/drain",
        "docs/design/defaults",
        "docs/threat-model",
        "docs/performance",
        "docs/glossary",
        "CONTRIBUTING",
        "SECURITY",
    ],
    "Records": ["docs/versions", "packages/*/CHANGELOG", "benchmarks/README", "benchmarks/results/*"],
}

myst_heading_anchors = 4
default_role = "code"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autoclass_content = "class"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
add_module_names = False
suppress_warnings = ["ref.python"]  # a name that two modules have is linked to one of them

html_theme = "furo"
html_title = "esockd"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False


def add_what_is_made(app: Sphinx, name: str, source: list[str]) -> None:
    """Add the list of chapters to the first page, and the help of every command to its page."""
    del app
    if name == root_doc:
        chapters = [
            "\n".join(["```{toctree}", ":hidden:", ":glob:", f":caption: {caption}", "", *pages, "```"])
            for caption, pages in CHAPTERS.items()
        ]
        source[0] = "\n\n".join([source[0], *chapters])
    elif name == "docs/reference/command":
        from tools.command_help import command_help  # noqa: PLC0415 (after the path is set)

        source[0] += command_help()


def setup(app: Sphinx) -> None:
    """Join Sphinx."""
    app.connect("source-read", add_what_is_made)
