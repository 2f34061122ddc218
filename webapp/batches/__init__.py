"""The domain: runs, batches and requests, and the steps that move them along their road."""
