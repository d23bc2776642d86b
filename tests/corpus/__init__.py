"""Posts every file of a folder to a server, and compares what it makes of each with what others read in it."""
