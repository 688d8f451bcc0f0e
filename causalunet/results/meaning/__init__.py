"""What a store's arrays mean: variables, dimensions, coordinates, and how far they are filled."""
