"""Damages pictures, documents and clips in thousands of ways, and shows that their decoders only ever refuse."""
