"""Plain torch definitions of the nets the tests run, and loaders of their published weights."""

from tests.models.cifar_resnet import cifar_resnet20, cifar_resnet32
from tests.models.lenet import lenet5, lenet300
from tests.models.mobilenet import mobilenet_v2
from tests.models.pretrained import PRETRAINED, load_pretrained
from tests.models.squeezenet import squeezenet1_0

__all__ = [
    "PRETRAINED",
    "cifar_resnet20",
    "cifar_resnet32",
    "lenet5",
    "lenet300",
    "load_pretrained",
    "mobilenet_v2",
    "squeezenet1_0",
]
