"""Code shared by several methods: checks of inputs, geometry and operations of images, mixing."""
