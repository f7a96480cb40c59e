"""Python source, read into a program."""
