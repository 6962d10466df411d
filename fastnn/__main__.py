"""``python -m fastnn``."""

from fastnn.cli import main

main()
