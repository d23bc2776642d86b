"""OpenAI's API: its wire types to the nouns of the house, and events back to its wire."""
