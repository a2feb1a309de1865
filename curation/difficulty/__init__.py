"""Difficulty as Proctor measures it: what fails without thinking and is right with it."""
