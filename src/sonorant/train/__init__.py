"""Training: one loop over Lightning Fabric that accumulates exactly, resumes bit for bit and says what goes wrong."""
