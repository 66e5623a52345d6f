"""Modules, their contents and their enrollments, as the platform's own services publish them."""
