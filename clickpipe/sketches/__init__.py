"""Kinds of sketches, one file each: what `sketch` gives, and what its values are written as."""
