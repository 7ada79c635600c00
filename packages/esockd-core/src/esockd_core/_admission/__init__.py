"""The verdict on who may come in, and the gate to the backlog."""
