"""The command line: sits on top, wires everything, is imported by nothing."""
