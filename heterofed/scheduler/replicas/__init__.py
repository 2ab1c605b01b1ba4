"""A party of several processes: the first talks to the other parties, the rest follow it and share its batches."""
