"""Drills: faults, overload and deploys, done for real to a real server. `make drills`."""
