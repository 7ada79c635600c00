"""A listener that is to be opened: what a command line and a configuration file both come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from esockd_core import Address, Handler, ListenerOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """One listener to open.

    Attributes:
        name: Its name.
        address: Where it listens.
        handler: What serves its connections.
        options: Its options.
        handler_text: What the handler is called where it was given.
        handler_mark: Equal to another one where the handler would be the same.
        handler_values: The values of options that the handler is made with.
        tls_mark: Equal to another one where the same files, with the same content, were read for TLS.
    """

    name: str
    address: Address
    handler: Handler
    options: ListenerOptions
    handler_text: str = ""
    handler_mark: object = None
    handler_values: Mapping[str, Any] = field(default_factory=dict)
    tls_mark: object = None

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from all others: name and address."""
        return self.name, str(self.address)

    def __str__(self) -> str:
        return f"{self.name} {self.address}"
