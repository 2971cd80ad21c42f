"""`python -m passthrough`."""

from passthrough.cli import main

main()
