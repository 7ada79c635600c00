"""`esockd bench`: load on a server from several processes, and how long its answers take."""
