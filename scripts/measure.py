"""``python scripts/measure.py`` is ``genbench-measure`` from a checkout."""

from genbench.cli import measure

if __name__ == "__main__":
    measure()
