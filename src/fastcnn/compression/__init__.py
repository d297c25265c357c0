"""Apply methods to whole models: convert, prepare, fine-tune, report, recipes."""
