"""Tools for those who develop Proctor."""
