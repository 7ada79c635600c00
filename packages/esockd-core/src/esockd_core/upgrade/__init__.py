"""Replacing a whole program by a new one on the same sockets, without losing a client.

The program that is to go starts its own command line again, with `replace_program`. The new one finds the sockets of
the one before with `find_predecessor`, opens its listeners suspended, says that it is ready, and takes over::

    predecessor = find_predecessor()
    async with Server() as server:
        await server.open("echo", 5000, echo, suspended=predecessor is not None)
        if predecessor is not None:
            await predecessor.ready()
            await server.listener("echo").resume()
            await predecessor.took_over()

Whatever fails before that leaves the program before as it was. Sockets that a service manager has stored meanwhile come
to a program in the same way, with `receive_stored_sockets`.
"""

from esockd_core.upgrade._predecessor import Predecessor, find_predecessor
from esockd_core.upgrade._stored import close_unclaimed_sockets, receive_stored_sockets, sockets_to_store
from esockd_core.upgrade._successor import replace_program

__all__ = [
    "Predecessor",
    "close_unclaimed_sockets",
    "find_predecessor",
    "receive_stored_sockets",
    "replace_program",
    "sockets_to_store",
]
