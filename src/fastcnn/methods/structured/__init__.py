"""Structured layers: low rank, tensor decompositions, fast transforms in the place of a matrix."""

from fastcnn.methods.structured.acdc import ACDCConfig as ACDCConfig
from fastcnn.methods.structured.circulant import BlockCirculantConfig as BlockCirculantConfig
from fastcnn.methods.structured.circulant import CirculantConfig as CirculantConfig
from fastcnn.methods.structured.cp import CPConfig as CPConfig
from fastcnn.methods.structured.exploit_linear import BiclusteredConfig as BiclusteredConfig
from fastcnn.methods.structured.exploit_linear import MonochromaticConfig as MonochromaticConfig
from fastcnn.methods.structured.fastfood import FastfoodConfig as FastfoodConfig
from fastcnn.methods.structured.low_rank import LowRankConfig as LowRankConfig
from fastcnn.methods.structured.predicted import PredictedConfig as PredictedConfig
from fastcnn.methods.structured.separable import SeparableConfig as SeparableConfig
from fastcnn.methods.structured.svd import SVDConfig as SVDConfig
from fastcnn.methods.structured.tensor_train import TTConfig as TTConfig
from fastcnn.methods.structured.tucker import TuckerConfig as TuckerConfig
