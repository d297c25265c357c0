"""Vector quantisation: weights become codes into small codebooks."""

from fastcnn.methods.vq.scalar import KMeansConfig as KMeansConfig
