"""The way of a batch between the parties: both roles' trainers, what they exchange, how it is paced and packed."""
