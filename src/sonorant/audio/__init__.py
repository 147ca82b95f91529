"""Waveforms in, tensors out: reading, resampling, filters, spectra, features, augmentation."""
