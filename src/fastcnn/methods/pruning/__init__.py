"""Pruning: weights become exact zeros, or leave."""

from fastcnn.methods.pruning import deep_compression as deep_compression
from fastcnn.methods.pruning import magnitude as magnitude
