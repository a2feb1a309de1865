"""The two channels of a choice: from its tokens to the text of its reasoning and its answer."""
