"""Changed inputs: attacks and common corruptions."""
