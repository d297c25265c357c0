"""Plan: a Graph and shapes in, an immutable, printable Plan out."""
