"""The live page: what the cameras see, in a browser at the line."""
