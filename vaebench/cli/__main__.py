"""`python -m vaebench.cli`."""

from vaebench.cli import app

app(prog_name="vaebench")
