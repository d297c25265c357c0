"""``torch.compile(model, backend="fastcnn")``: found by torch through the entry point group ``torch_dynamo_backends``.

Where torch's registry does not see the installed package, pass the function itself:
``torch.compile(model, backend=fastcnn.engine.torch_backend.fastcnn)``.
"""

from fastcnn._extras import require

require("torch", extra="compress", purpose='torch.compile(backend="fastcnn")')

from fastcnn.engine.torch_backend.backend import fastcnn  # noqa: E402

__all__ = ["fastcnn"]
