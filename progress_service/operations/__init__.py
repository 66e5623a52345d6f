"""Health, metrics, logs, traces and the description of the API, for the people who run the service."""
