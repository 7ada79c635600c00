"""The live dashboard `esockd top`: a client process, apart from the listeners it shows."""
