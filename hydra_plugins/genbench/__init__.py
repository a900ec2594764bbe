"""Plugins that Hydra finds only under this name."""
