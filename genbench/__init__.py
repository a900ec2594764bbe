"""genbench: what makes this network generalize?"""

__version__ = "0.1.0"
