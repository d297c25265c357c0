"""Exact fast algorithms: same weights, other arithmetic."""

from fastcnn.methods.transforms import fft_conv as fft_conv
from fastcnn.methods.transforms import winograd_conv as winograd_conv
