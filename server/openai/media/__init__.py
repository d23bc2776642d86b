"""Media in a message: the parts that hold them, and the controls beside them."""
