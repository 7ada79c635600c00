"""The control socket: inspecting and changing the listeners of another process."""
