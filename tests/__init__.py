"""The test-suite; a package so that tests share reference code and model definitions."""
