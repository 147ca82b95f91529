"""What self-supervised models are trained to do; `catalogue.py` lists the objectives by name."""
