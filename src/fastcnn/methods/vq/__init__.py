"""Vector quantisation: weights become codes into small codebooks."""

from fastcnn.methods.vq import scalar as scalar
