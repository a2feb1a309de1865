"""Diversity: the domains of questions, and the samplers that choose among them."""
