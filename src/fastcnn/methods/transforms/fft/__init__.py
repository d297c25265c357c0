"""The fast Fourier transform from first principles, in NumPy: the reference that the tutorial and the tests read.

It is written to be read, not to be quick: every pass is a few lines, and ``docs/concepts/fft.md`` walks through them.
"""

from fastcnn.methods.transforms.fft.complex_fft import fft as fft
from fastcnn.methods.transforms.fft.complex_fft import ifft as ifft
from fastcnn.methods.transforms.fft.lengths import next_fast_length as next_fast_length
from fastcnn.methods.transforms.fft.polynomial import polynomial_multiply as polynomial_multiply
from fastcnn.methods.transforms.fft.real_fft import irfft as irfft
from fastcnn.methods.transforms.fft.real_fft import rfft as rfft
from fastcnn.methods.transforms.fft.real_fft2 import irfft2 as irfft2
from fastcnn.methods.transforms.fft.real_fft2 import rfft2 as rfft2
