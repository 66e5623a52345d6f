"""Statistics of a module, for those who teach it."""
