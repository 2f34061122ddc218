"""The chaos harness: real processes that are killed everywhere, an API that misbehaves, and an audit at the end."""
