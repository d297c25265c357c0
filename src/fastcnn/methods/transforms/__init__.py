"""Exact fast algorithms: same weights, other arithmetic."""

from fastcnn.methods.transforms.fft_conv import FFTConfig as FFTConfig
from fastcnn.methods.transforms.winograd_conv import WinogradConfig as WinogradConfig
