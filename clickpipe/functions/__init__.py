"""Functions in expressions, beside those of SQL: one file each."""
