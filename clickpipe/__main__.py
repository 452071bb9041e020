"""`python -m clickpipe` is the console script."""

from clickpipe.cli.main import main

main()
