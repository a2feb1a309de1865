"""The models of Anthropic's Messages API."""
