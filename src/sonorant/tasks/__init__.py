"""Level 5: objectives that can also answer."""
