"""What outlives a pipeline and is read by others."""
