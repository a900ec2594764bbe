"""Changes of inputs: adversarial attacks and common corruptions."""
