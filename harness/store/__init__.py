"""What is on disk: records, where they lie, who may write, and which of them stand."""
