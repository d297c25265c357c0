"""Low precision: weights and activations of one bit."""
