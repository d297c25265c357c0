"""Third-party nets of pytorchcv, one by one: which run natively, at which error, and why the others do not."""
