"""Figures: those of a sweep (sweep), those that an experiment asks for (custom), those of one network (network)."""
