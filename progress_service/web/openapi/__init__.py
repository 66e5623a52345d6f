"""The OpenAPI document: everything that callers may rely on."""
