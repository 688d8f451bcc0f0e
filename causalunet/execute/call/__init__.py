"""One U-Net call under an action: traced through nnsight, or with cuts installed in its modules."""
