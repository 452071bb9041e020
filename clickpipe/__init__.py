"""clickpipe: real-time analytics for click and event streams, made of Unix commands."""

__version__ = "0.1.0"
RELEASED = "2026-11-24"
