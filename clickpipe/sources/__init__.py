"""One file per source of raw input."""
