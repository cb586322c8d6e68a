"""Records -> tables, charts and documents. The plan says which rows there are, the records what stands in them."""
