"""`python -m kogia`: the same as the `kogia` command."""

from kogia.cli import main

main()
