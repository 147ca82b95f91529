"""The catalogue of corpora: one importer a file, and every recipe of lhotse through one adapter."""
