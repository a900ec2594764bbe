"""Papers that experiments replicate: what was claimed, the summaries of their runs, the scoreboard, a page each."""
