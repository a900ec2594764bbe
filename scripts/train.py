"""``python scripts/train.py`` is ``genbench`` from a checkout."""

from genbench.cli import train

if __name__ == "__main__":
    train()
