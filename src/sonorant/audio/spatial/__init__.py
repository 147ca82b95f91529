"""Rooms and microphone arrays."""
