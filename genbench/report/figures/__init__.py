"""Figures: of a sweep (sweep), as an experiment asks for them (custom), of one network (network)."""
