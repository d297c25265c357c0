"""The list of nets: at least one of every family of image classifiers in pytorchcv, then segmentation, pose and speech.

Nets take the picture size they were made for, unless a smaller one stands here (it saves time and changes no layer).
Families that cannot run stay in the list: the record gives their reasons. Nets for detection and pose return heat maps:
what makes boxes and points of them is no part of a net. Left out are only nets on video and nets
with several inputs (RAFT, ProPainter, VOCA, NVPattExp, VisemeNet).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ZooNet:
    """One net.

    Attributes
    ----------
    name : str
        Function of pytorchcv that makes it; unique in the list.
    family : str
    module : str
        Under ``pytorchcv.models``.
    size : tuple of int or None
        Extents after the channels; None takes the net's own ``in_size``.
    channels : int
        Of the input.
    arguments : mapping
        Keyword arguments of the function.
    """

    name: str
    family: str
    module: str
    size: tuple[int, ...] | None = None
    channels: int = 3
    arguments: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


def _nets(
    family: str, module: str, *names: str, size: tuple[int, ...] | None = None, channels: int = 3, **arguments: Any
) -> list[ZooNet]:
    return [
        ZooNet(name=n, family=family, module=module, size=size, channels=channels, arguments=arguments) for n in names
    ]


def _city(family: str, module: str, *names: str, size: tuple[int, int] = (128, 256)) -> list[ZooNet]:
    """Street scenes at a part of their 1024 x 2048."""
    return _nets(family, module, *names, size=size, in_size=size)


def _lines(family: str, module: str, *names: str) -> list[ZooNet]:
    """Speech: 64 features of 160 steps of time."""
    return _nets(family, module, *names, size=(160,), channels=64, from_audio=False)


_LIST: list[ZooNet] = [
    *_nets("AlexNet", "alexnet", "alexnet"),
    *_nets("ZFNet", "zfnet", "zfnet"),
    *_nets("VGG", "vgg", "vgg11", "bn_vgg13"),
    *_nets("BN-Inception", "bninception", "bninception"),
    *_nets("Inception v3", "inceptionv3", "inceptionv3"),
    *_nets("Inception v4", "inceptionv4", "inceptionv4"),
    *_nets("Inception-ResNet", "inceptionresnetv1", "inceptionresnetv1"),
    *_nets("PolyNet", "polynet", "polynet"),
    *_nets("ResNet", "resnet", "resnet10", "resnet18", "resnet50"),
    *_nets("ResNet-A", "resneta", "resneta10"),
    *_nets("ResNet-D", "resnetd", "resnetd50b"),
    *_nets("ResNet (CIFAR)", "resnet_cifar", "resnet20_cifar10"),
    *_nets("ResNet (CUB)", "resnet_cub", "resnet18_cub"),
    *_nets("PreResNet", "preresnet", "preresnet18"),
    *_nets("PreResNet", "preresnet_cifar", "preresnet20_cifar10"),
    *_nets("WRN", "wrn", "wrn50_2"),
    *_nets("1-bit WRN", "wrn1bit_cifar", "wrn20_10_1bit_cifar10"),
    *_nets("ResNeXt", "resnext", "resnext14_32x4d"),
    *_nets("ResNeXt", "resnext_cifar", "resnext20_32x2d_cifar10"),
    *_nets("SE-ResNet", "seresnet", "seresnet18"),
    *_nets("SE-ResNet", "seresnet_cifar", "seresnet20_cifar10"),
    *_nets("SE-PreResNet", "sepreresnet", "sepreresnet18"),
    *_nets("SE-PreResNet", "sepreresnet_cifar", "sepreresnet20_cifar10"),
    *_nets("SE-ResNeXt", "seresnext", "seresnext50_32x4d"),
    *_nets("SENet", "senet", "senet16"),
    *_nets("Fast-SE-ResNet", "fastseresnet", "fastseresnet101b"),
    *_nets("IBN-ResNet", "ibnresnet", "ibn_resnet50"),
    *_nets("IBN(b)-ResNet", "ibnbresnet", "ibnb_resnet50"),
    *_nets("IBN-ResNeXt", "ibnresnext", "ibn_resnext50_32x4d"),
    *_nets("IBN-DenseNet", "ibndensenet", "ibn_densenet121"),
    *_nets("AirNet", "airnet", "airnet50_1x64d_r2"),
    *_nets("AirNeXt", "airnext", "airnext50_32x4d_r2"),
    *_nets("BAM-ResNet", "bamresnet", "bam_resnet18"),
    *_nets("CBAM-ResNet", "cbamresnet", "cbam_resnet18"),
    *_nets("ResAttNet", "resattnet", "resattnet56"),
    *_nets("SKNet", "sknet", "sknet50"),
    *_nets("SCNet", "scnet", "scnet50"),
    *_nets("ResNeSt", "resnesta", "resnesta18"),
    *_nets("TResNet", "tresnet", "tresnet_m"),
    *_nets("DIA-ResNet", "diaresnet", "diaresnet10"),
    *_nets("DIA-ResNet", "diaresnet_cifar", "diaresnet20_cifar10"),
    *_nets("DIA-PreResNet", "diapreresnet", "diapreresnet10"),
    *_nets("DIA-PreResNet", "diapreresnet_cifar", "diapreresnet20_cifar10"),
    *_nets("iSQRT-COV-ResNet", "isqrtcovresnet", "isqrtcovresnet18"),
    *_nets("Oct-ResNet", "octresnet", "octresnet10_ad2"),
    *_nets("PyramidNet", "pyramidnet", "pyramidnet101_a360"),
    *_nets("DiracNetV2", "diracnetv2", "diracnet18v2"),
    *_nets("ShaResNet", "sharesnet", "sharesnet18"),
    *_nets("RoR (CIFAR)", "ror_cifar", "ror3_56_cifar10"),
    *_nets("RiR (CIFAR)", "rir_cifar", "rir_cifar10"),
    *_nets("NIN (CIFAR)", "nin_cifar", "nin_cifar10"),
    *_nets("ResDrop-ResNet", "resdropresnet_cifar", "resdropresnet20_cifar10"),
    *_nets("Shake-Shake-ResNet", "shakeshakeresnet_cifar", "shakeshakeresnet20_2x16d_cifar10"),
    *_nets("ShakeDrop-ResNet", "shakedropresnet_cifar", "shakedropresnet20_cifar10"),
    *_nets("FractalNet", "fractalnet_cifar", "fractalnet_cifar10"),
    *_nets("RevNet", "revnet", "revnet38"),
    *_nets("i-RevNet", "irevnet", "irevnet301"),
    *_nets("DenseNet", "densenet", "densenet121"),
    *_nets("DenseNet", "densenet_cifar", "densenet40_k12_cifar10"),
    *_nets("X-DenseNet", "xdensenet", "xdensenet121_2"),
    *_nets("SparseNet", "sparsenet", "sparsenet121"),
    *_nets("CondenseNet", "condensenet", "condensenet74_c8_g8"),
    *_nets("PeleeNet", "peleenet", "peleenet"),
    *_nets("HarDNet", "hardnet", "hardnet39ds"),
    *_nets("VoVNet", "vovnet", "vovnet27s"),
    *_nets("SelecSLS", "selecsls", "selecsls42b"),
    *_nets("DRN", "drn", "drnd22"),
    *_nets("DPN", "dpn", "dpn68"),
    *_nets("DLA", "dla", "dla34", "dla46xc"),
    *_nets("HRNet", "hrnet", "hrnet_w18_small_v1"),
    *_nets("FishNet", "fishnet", "fishnet99"),
    *_nets("MSDNet", "msdnet", "msdnet22"),
    *_nets("BagNet", "bagnet", "bagnet17"),
    *_nets("DarkNet", "darknet", "darknet_ref", "darknet19"),
    *_nets("DarkNet-53", "darknet53", "darknet53"),
    *_nets("Xception", "xception", "xception"),
    *_nets("SqueezeNet", "squeezenet", "squeezenet_v1_1", "squeezeresnet_v1_1"),
    *_nets("SqueezeNext", "squeezenext", "sqnxt23_w1"),
    *_nets("ShuffleNet v1", "shufflenet", "shufflenet_g3_wd2"),
    *_nets("ShuffleNet v2", "shufflenetv2", "shufflenetv2_w1"),
    *_nets("ShuffleNet v2b", "shufflenetv2b", "shufflenetv2b_w1"),
    *_nets("MENet", "menet", "menet108_8x1_g3"),
    *_nets("MobileNet v1", "mobilenet", "mobilenet_w1"),
    *_nets("MobileNet v1b", "mobilenetb", "mobilenetb_w1"),
    *_nets("FD-MobileNet", "fdmobilenet", "fdmobilenet_w1"),
    *_nets("MobileNet v2", "mobilenetv2", "mobilenetv2_w1"),
    *_nets("MobileNet v3", "mobilenetv3", "mobilenetv3_small_w1", "mobilenetv3_large_w1"),
    *_nets("IGCV3", "igcv3", "igcv3_w1"),
    *_nets("GhostNet", "ghostnet", "ghostnet"),
    *_nets("MnasNet", "mnasnet", "mnasnet_a1"),
    *_nets("DARTS", "darts", "darts"),
    *_nets("ProxylessNAS", "proxylessnas", "proxylessnas_cpu"),
    *_nets("FBNet", "fbnet", "fbnet_cb"),
    *_nets("Single-Path NAS", "spnasnet", "spnasnet"),
    *_nets("NASNet", "nasnet", "nasnet_4a1056"),
    *_nets("PNASNet", "pnasnet", "pnasnet5large"),
    *_nets("EfficientNet", "efficientnet", "efficientnet_b0"),
    *_nets("EfficientNet-Edge", "efficientnetedge", "efficientnet_edge_small_b"),
    *_nets("MixNet", "mixnet", "mixnet_s"),
    *_nets("RegNet", "regnet", "regnetx002", "regnety002"),
    *_nets("ESPNet v2", "espnetv2", "espnetv2_wd2"),
    *_nets("DiCENet", "dicenet", "dicenet_wd2"),
    *_nets("ChannelNet", "channelnet", "channelnet"),
    *_nets("NTS-Net", "ntsnet_cub", "ntsnet_cub"),
    *_nets("FCN-8s", "fcn8sd", "fcn8sd_resnetd50b_voc", size=(128, 128), in_size=(128, 128)),
    *_nets("PSPNet", "pspnet", "pspnet_resnetd50b_voc", size=(128, 128), in_size=(128, 128)),
    *_nets("DeepLab v3", "deeplabv3", "deeplabv3_resnetd50b_voc", size=(128, 128), in_size=(128, 128)),
    *_nets("BiSeNet", "bisenet", "bisenet_resnet18_celebamaskhq", size=(128, 128), in_size=(128, 128)),
    *_city("ICNet", "icnet", "icnet_resnetd50b_cityscapes", size=(128, 128)),
    *_city("DANet", "danet", "danet_resnetd50b_cityscapes", size=(128, 128)),
    *_city("Fast-SCNN", "fastscnn", "fastscnn_cityscapes"),
    *_city("CGNet", "cgnet", "cgnet_cityscapes"),
    *_city("DABNet", "dabnet", "dabnet_cityscapes"),
    *_city("SINet", "sinet", "sinet_cityscapes"),
    *_city("LEDNet", "lednet", "lednet_cityscapes"),
    *_city("ENet", "enet", "enet_cityscapes"),
    *_city("ERFNet", "erfnet", "erfnet_cityscapes"),
    *_city("ESNet", "esnet", "esnet_cityscapes"),
    *_city("ESPNet-C", "espcnet", "espcnet_cityscapes"),
    *_city("EDANet", "edanet", "edanet_cityscapes"),
    *_city("FPENet", "fpenet", "fpenet_cityscapes"),
    *_city("ContextNet", "contextnet", "ctxnet_cityscapes"),
    *_city("LinkNet", "linknet", "linknet_cityscapes"),
    *_city("SegNet", "segnet", "segnet_cityscapes"),
    *_city("U-Net", "unet", "unet_cityscapes"),
    *_city("SQNet", "sqnet", "sqnet_cityscapes"),
    *_nets(
        "CenterNet", "centernet", "centernet_resnet18_voc", return_heatmap=True, size=(128, 128), in_size=(128, 128)
    ),
    *_nets("LFFD", "lffd", "lffd20x5s320v2_widerface", size=(128, 128), in_size=(128, 128)),
    *_nets("SimplePose", "simplepose_coco", "simplepose_resnet18_coco", return_heatmap=True),
    *_nets("SimplePose (mobile)", "simpleposemobile_coco", "simplepose_mobile_mobilenet_w1_coco", return_heatmap=True),
    *_nets("AlphaPose", "alphapose_coco", "alphapose_fastseresnet101b_coco", return_heatmap=True),
    *_nets("IBPPose", "ibppose_coco", "ibppose_coco", size=(128, 128), in_size=(128, 128)),
    *_nets("Lightweight OpenPose", "lwopenpose_cmupan", "lwopenpose2d_mobilenet_cmupan_coco", size=(192, 192)),
    *_nets("PRNet", "prnet", "prnet"),
    *_nets("PFPCNet", "pfpcnet", "pfpcnet", channels=1),
    *_nets("SuperPointNet", "superpointnet", "superpointnet", size=(128, 128), channels=1),
    *_lines("Jasper", "jasper", "jasper5x3"),
    *_lines("QuartzNet", "quartznet", "quartznet5x5_en_ls"),
]

NETS: Mapping[str, ZooNet] = MappingProxyType({net.name: net for net in _LIST})
"""Name to net, in the order of the record."""
