"""A calculator with a session for each client, by callbacks: what a gen_server is in Erlang.

python examples/sessions.py 5000
nc 127.0.0.1 5000  # in another terminal; type: add 40, add 2, undo, total
esockd connections list  # for a listener of `esockd open sessions:Calculator 5000 --app-dir examples`
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import anyio

from esockd_core import CallbackHandler, Server, StreamConnection

LONGEST_LINE = 1024


@dataclass(slots=True)
class Session:
    """What is known of one client.

    Attributes:
        unread: The beginning of a line.
        added: The numbers that it has added.
    """

    unread: bytes = b""
    added: list[int] = field(default_factory=list)

    def answer(self, line: str) -> str:
        """Do what a line asks for."""
        match line.split():
            case ["add", number] if number.lstrip("-").isdecimal() and len(self.added) < 1000:
                self.added.append(int(number))
            case ["undo"] if self.added:
                self.added.pop()
            case ["total"]:
                pass
            case _:
                return "what?"
        return str(sum(self.added))


class Calculator(CallbackHandler[StreamConnection]):
    """Serves all connections; what differs is in their sessions."""

    def connection_made(self, connection: StreamConnection) -> None:
        """Begin a session."""
        connection.user_data = Session()

    def data_received(self, connection: StreamConnection, data: bytes) -> None:
        """Answer the lines that have come."""
        session: Session = connection.user_data
        *lines, session.unread = (session.unread + data).split(b"\n")
        if len(session.unread) > LONGEST_LINE:
            connection.close_nowait("line too long")
            return
        answers = [session.answer(line.decode(errors="replace")) for line in lines]
        connection.send_nowait("".join(f"{answer}\n" for answer in answers).encode())

    def drain_requested(self, connection: StreamConnection) -> None:
        """Tell the result before the server ends."""
        session: Session = connection.user_data
        connection.send_nowait(f"goodbye: {session.answer('total')}\n".encode())
        connection.close_nowait("shutdown")


async def main(address: str) -> None:
    """Serve until SIGINT or SIGTERM."""
    async with Server() as server:
        listener = await server.open("calculator", address, Calculator(), idle_timeout=600)
        print("listening on", *listener.addresses, flush=True)
        await server.serve_until_signal()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
