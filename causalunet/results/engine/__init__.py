"""How a store's bytes are kept: the storage engine, transactions, claims, exports."""
