"""Records -> tables, charts and README. The plan says which rows there are, the records what stands in them."""
