"""``fastcnn demo``: the whole way on this machine, with data that comes by pip."""

from fastcnn.cli.demo.command import demo

__all__ = ["demo"]
