"""Streaming, with no part in it."""
