"""One file per format of raw input."""
