"""Claims about the runs of an experiment: decision rules over seeds, and verdicts."""
