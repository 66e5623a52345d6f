"""Modules, their contents, and who is enrolled in them, as the platform's own services publish them."""
