"""Encoders: features in, `Features` out; one file a family."""
