"""`python -m rabbitbal.operator`."""

from rabbitbal.operator.cli import main

main()
