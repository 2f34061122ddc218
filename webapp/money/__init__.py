"""What a batch costs: prices as dated data, and the ledger of billed answers."""
