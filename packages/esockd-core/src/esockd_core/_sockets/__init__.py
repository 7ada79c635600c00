"""Opening listening sockets."""
