"""What Hydra only discovers under this name."""
