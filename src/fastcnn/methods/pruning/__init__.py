"""Pruning: weights become exact zeros, or leave."""

from fastcnn.methods.pruning.deep_compression import DeepCompressionConfig as DeepCompressionConfig
from fastcnn.methods.pruning.magnitude import MagnitudeConfig as MagnitudeConfig
