"""One engine for FFT and Winograd convolutions: tiles, a linear transform, products per frequency, the way back.

``settings`` says what is asked for, ``geometry`` reduces stride and dilation to a plain correlation cut into tiles,
``transforms`` holds the two transforms, ``passes`` the three passes (y, gradient of x, gradient of the weight),
``chunks`` the memory cap, ``ops`` the ops and their autograd, ``layer`` what both layers share, ``measure`` and
``first_call`` when measured time decides.
"""
