"""What other services are told of: the feed of changes, and webhooks."""
