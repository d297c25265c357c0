"""Low precision: weights and activations of one bit, or of a few."""

from fastcnn.methods.lowprecision.bitwise import BitwiseConfig as BitwiseConfig
from fastcnn.methods.lowprecision.bnn import BinaryConnectConfig as BinaryConnectConfig
from fastcnn.methods.lowprecision.bnn import BNNConfig as BNNConfig
from fastcnn.methods.lowprecision.dorefa import DoReFaConfig as DoReFaConfig
from fastcnn.methods.lowprecision.int8 import Int8Config as Int8Config
from fastcnn.methods.lowprecision.int8_training import Int8Training as _Int8Training  # noqa: F401  # registers it
from fastcnn.methods.lowprecision.xnor import BWNConfig as BWNConfig
from fastcnn.methods.lowprecision.xnor import XNORConfig as XNORConfig
