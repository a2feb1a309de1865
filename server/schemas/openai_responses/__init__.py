"""The models of OpenAI's Responses API."""
