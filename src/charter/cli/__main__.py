"""``python -m charter.cli``."""

from charter.cli import main

main()
