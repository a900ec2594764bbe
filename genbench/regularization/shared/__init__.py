"""What several methods share: checks and random places of inputs, geometry and operations of images, mixing."""
