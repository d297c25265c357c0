"""``python -m fastcnn`` is the ``fastcnn`` program."""

from fastcnn.cli.main import main

if __name__ == "__main__":
    main()
