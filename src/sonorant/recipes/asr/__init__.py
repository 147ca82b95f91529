"""Recipes for recognition."""
