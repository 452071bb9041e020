"""Commands that are not steps, one file each."""
