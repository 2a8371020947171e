"""The command line: a parser, one module a verb, and rendering."""
