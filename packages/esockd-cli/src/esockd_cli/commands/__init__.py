"""The commands that inspect and change running instances, and the small packages at the prompt."""
