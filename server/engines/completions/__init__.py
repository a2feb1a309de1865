"""An engine over any OpenAI-compatible completions server, by stop and resubmit."""
