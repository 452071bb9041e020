"""SQL over views, archives and logs."""
