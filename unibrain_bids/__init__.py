"""Fast structural brain MRI processing: a BIDS App around one neural model."""

__version__ = "0.1.0"
