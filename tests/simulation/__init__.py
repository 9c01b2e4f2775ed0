"""How often the gate is wrong, measured: `python -m tests.simulation` prints the table."""
