"""The dashboard: what runs, how fast, how late, and where it hurts."""
