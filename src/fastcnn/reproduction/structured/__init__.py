"""Structured layers in training: dense layers on Fashion-MNIST and MNIST, a plain net for CIFAR-10, MobileNetV2."""
