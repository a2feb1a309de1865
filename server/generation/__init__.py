"""From a parsed request to the text of its choices: budget, prompt, jobs, channels."""
