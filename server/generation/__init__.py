"""From a parsed request to generated text: admission, budget, prompt, jobs and channels."""
