"""The README of a package as it reads on a package index, where none of the repository's other files are.

In the repository, READMEs link to other files by relative paths. These work in a clone, on the host of the repository
and on the site, but an index shows the README alone. So the links in what is built lead to the same files in the
repository, as they were when the package was tagged.
"""

from __future__ import annotations

import posixpath
import re

RELATIVE_LINK = re.compile(r"(?<=\]\()(?!#|[a-z]+:)([^)\s#]+)")  # with the brackets before, without the anchor behind


def relative_links(text: str) -> list[str]:
    """Every path that a page links to, as it is written there."""
    return RELATIVE_LINK.findall(text)


def for_index(text: str, folder: str, repository: str, tag: str) -> str:
    """A README with links that work everywhere.

    Args:
        text: The README.
        folder: Where it is in the repository.
        repository: The address of the repository.
        tag: The name under which the linked files are kept.
    """

    def absolute(link: re.Match[str]) -> str:
        return f"{repository}/blob/{tag}/{posixpath.normpath(posixpath.join(folder, link[0]))}"

    return RELATIVE_LINK.sub(absolute, text)
