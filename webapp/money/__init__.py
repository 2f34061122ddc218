"""What a batch costs: prices as dated data, the ledger of billed answers, estimates before, and caps meanwhile."""
