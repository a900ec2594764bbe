"""Statistics over the seeds and configurations of runs."""
