"""What clickpipe needs of a machine, one check a file: `look` finds what is there, `verdict` judges it and touches nothing."""
