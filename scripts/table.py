"""``python scripts/table.py`` is ``genbench-table`` from a checkout."""

from genbench.cli import table

if __name__ == "__main__":
    table()
