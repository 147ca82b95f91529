"""Tables of foreign names, one file a family: see `encoders/convert.py` for what they are made of."""
