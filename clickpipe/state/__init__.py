"""Bytes that outlive a process."""
