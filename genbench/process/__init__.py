"""The process: memory, signals, progress, standard streams, temporary files."""
