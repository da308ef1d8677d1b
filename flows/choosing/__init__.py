"""A setting chosen for a user's images, with a guarantee on how much it hallucinates."""
