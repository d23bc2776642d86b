"""The wire types of the OpenAI API: pydantic models without behaviour."""
