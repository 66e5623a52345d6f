"""Statistics of modules, for those who teach them."""
