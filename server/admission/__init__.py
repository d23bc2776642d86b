"""Who may enter, and when; reads no content."""
