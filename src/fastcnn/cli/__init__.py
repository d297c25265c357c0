"""The command line: a file per command. Importing it needs neither torch nor the native extension."""
