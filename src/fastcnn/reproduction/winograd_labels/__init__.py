"""Winograd's F(4,3) in every layer of two trained nets for CIFAR-10: the labels stay."""
