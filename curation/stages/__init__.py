"""The stages of a recipe, each in a file of its own."""
