"""Configuration files: their keys, what is wrong with them, and what a reload changes."""
