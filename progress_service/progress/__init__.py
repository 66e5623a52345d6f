"""A learner's progress: updates, completion, the dashboard and the view of a module."""
