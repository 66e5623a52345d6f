"""What all endpoints share: guards, tokens, requests, problems, answers and their description."""
