"""The shared part of all endpoints: decorators, tokens, requests, problems, answers and their description."""
