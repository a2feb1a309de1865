"""Fine-tunes a model on curated rows, and checks that the server finds its markers."""
