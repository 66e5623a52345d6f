"""`make run`: the service with a demo catalog, and with learners who have worked with it for two months."""
