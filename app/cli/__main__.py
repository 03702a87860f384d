"""``python -m app.cli``: the same as ``rackcast``."""

from app.cli import main

main()
